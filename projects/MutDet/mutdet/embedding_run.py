"""A run of embedding: from pseudo-boxes to the same boxes with embeddings and pseudo-classes.

Four steps, each of them saved, so that a killed run continues where it stopped:

1. features of all boxes, in parts under ``.features`` of the output folder (shared by processes);
2. PCA and centres fitted on them, in ``reduction.npz``, unless an earlier file is given;
3. the shards, each with its boxes, embeddings and clusters in one file;
4. the features are removed.

Shapes: N boxes, F features, D components.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from iopath.common.file_io import file_lock
from tqdm import tqdm

from rsd2.data.formats.pseudo_labels import (
    EmbeddingHeader,
    PseudoLabelError,
    PseudoLabels,
    find_shards,
    read_header,
    read_shard,
    write_shard,
)
from rsd2.io.arrays import ArrayFileError, read_arrays
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.folder_run import FolderRun, claim_folder, make_run_id, refuse_other_parameters
from rsd2.io.image_io import read_image

from .embedder import FeatureExtractor
from .reduction import Reduction, fit_reduction, load_reduction

REDUCTION = "reduction.npz"
_FEATURES = ".features"
_PART_SIZE = 64


@dataclass(frozen=True)
class FitSettings:
    """Settings of PCA and k-means; see ``fit_reduction``.

    Attributes:
        dim: number of components.
        num_clusters: number of pseudo-classes.
        whiten: whether to divide components by their deviations. What the official code did is
            unknown; on generated scenes it makes clusters purer.
        kmeans: ``"minibatch"`` or ``"full"``.
        max_samples: number of objects that k-means sees.
        seed: seed of the sample and of k-means.
    """

    dim: int = 256
    num_clusters: int = 256
    whiten: bool = True
    kmeans: str = "minibatch"
    max_samples: int = 200_000
    seed: int = 0


@dataclass(frozen=True)
class _Part:
    """Images of a shard that share a file of features."""

    path: Path
    records: Sequence[PseudoLabels]

    @property
    def rows(self) -> int:
        return sum(len(record.boxes) for record in self.records)


class EmbeddingRun:
    """The embedding of the boxes of one run."""

    def __init__(
        self,
        boxes: str | Path,
        image_root: str | Path,
        output: str | Path,
        extractor: FeatureExtractor,
    ) -> None:
        """Check the folders against each other, before anything is computed.

        Args:
            boxes: folder of the finished shards of ``make_pseudo_labels.py``.
            image_root: folder of the images on which they were made.
            output: another folder, made if missing; may hold an unfinished run of the same boxes
                and extractor.
            extractor: extractor of the features.

        Raises:
            PseudoLabelError: if shards are missing or have embeddings already.
            FolderTakenError: if the output folder belongs to other boxes or another extractor.
        """
        self._shards, self._root = find_shards(boxes), Path(image_root)
        self._output, self._extractor = Path(output), extractor
        headers = [read_header(path) for path in self._shards]
        self._boxes_id = headers[0].run_id
        others = [path for path, h in zip(self._shards, headers) if h.run_id != self._boxes_id]
        if others:
            raise PseudoLabelError(
                f"{others[0]} belongs to another run than {self._shards[0]}; keep each run in a "
                "folder of its own"
            )

        if headers[0].embedding is not None:
            raise PseudoLabelError(f"{boxes} has embeddings already; give the folder of the boxes")
        if self._output.resolve() == Path(boxes).resolve():
            raise PseudoLabelError(f"write to another folder than that of the boxes, {boxes}")

        # Through JSON once, so that the settings equal those read back from a shard: tuples are
        # lists.
        self._settings = json.loads(json.dumps(extractor.settings()))
        self._features_id = make_run_id(self._settings, [self._boxes_id])
        make_output_folder(self._output / _FEATURES)
        self._check_owner()

    @property
    def lock(self) -> Path:
        """Path to lock while features become shards."""
        return self._output / _FEATURES / "finish"

    def compute_features(self, shard: tuple[int, int] = (0, 1), *, progress: bool = True) -> None:
        """Compute the missing features.

        Args:
            shard: (index, number): this process takes every number-th part.
            progress: whether to show a progress bar.

        Raises:
            PseudoLabelError: if an image has another size than when its boxes were made.
            FileNotFoundError: if an image is gone.
            ValueError: if an image cannot be read any more, or there is no such shard.
        """
        run = FolderRun(list(self._parts()), lambda part: self._load(part) is not None, shard)
        run.make(
            self._compute, title="features", unit="box", size=lambda p: p.rows, progress=progress
        )

    def is_ready(self) -> bool:
        """Tell whether all features exist, those of other processes too, or the run is finished."""
        return self.is_finished() or all(part.path.is_file() for part in self._parts())

    def is_finished(self) -> bool:
        """Tell whether all shards are written."""
        return all((self._output / path.name).is_file() for path in self._shards)

    def reduce(self, settings: FitSettings, given: str | Path | None = None) -> Reduction:
        """Fit the reduction, or read the existing or given one.

        Args:
            settings: settings of the fit.
            given: file of an earlier run, on these or other images, with the same extractor.

        Returns:
            The reduction.

        Raises:
            PseudoLabelError: if the existing or given reduction was fitted on other features, or
                with other settings.
            ValueError: if there are too few boxes for it.
        """
        path = self._output / REDUCTION
        about = {"extractor": self._settings}
        if given is not None:
            found = load_reduction(given)
            if found.about.get("extractor") != self._settings:
                raise PseudoLabelError(
                    f"{given} was fitted on features of {found.about.get('extractor')}, these come "
                    f"from {self._settings}"
                )

            if not path.is_file():
                found.save(path)
            elif load_reduction(path).id != found.id:
                raise PseudoLabelError(
                    f"{self._output} was begun with another reduction than {given}; choose another "
                    "output folder, or delete it"
                )

            return found

        about["fit"] = asdict(settings)
        about["boxes_run_id"] = self._boxes_id
        if path.is_file():
            found = load_reduction(path)
            wanted = json.loads(json.dumps(about))
            there = {key: found.about.get(key) for key in wanted}
            if there != wanted:
                raise PseudoLabelError(
                    f"{path} was fitted with {there}, but this run asks for {wanted}; choose "
                    "another output folder, or delete it"
                )

            return found

        parts = list(self._parts())
        total = sum(part.rows for part in parts)
        reduction = fit_reduction(self._batches(parts), total, about=about, **asdict(settings))
        reduction.save(path)

        # Read back, so that this run goes on with the very numbers that a continued one would
        # read.
        return load_reduction(path)

    def write(self, reduction: Reduction, *, progress: bool = True) -> list[Path]:
        """Write the missing shards, then remove the features.

        Args:
            reduction: reduction to apply.
            progress: whether to show a progress bar.

        Returns:
            All shards.

        Raises:
            PseudoLabelError: if an existing shard was made with another reduction.
        """
        embedding = EmbeddingHeader(
            make_run_id({"features": self._features_id}, [reduction.id]),
            self._boxes_id,
            reduction.id,
            len(reduction.matrix),
            len(reduction.centers),
            self._settings,
        )

        written = []
        # Features are computed again where their file was lost; finished shards are left alone.
        for path in tqdm(self._shards, desc="shards", disable=not progress):
            target = self._output / path.name
            written.append(target)
            if target.is_file():
                found = read_header(target).embedding
                if found is None or found.run_id != embedding.run_id:
                    raise PseudoLabelError(
                        f"{target} was made with another reduction; choose another output folder, "
                        "or delete it"
                    )
                continue

            header = read_header(path)
            records = [
                record
                for part in self._parts_of(path)
                for record in _embed(part.records, self._features(part), reduction)
            ]
            write_shard(target, records, replace(header, embedding=embedding))

        shutil.rmtree(self._output / _FEATURES, ignore_errors=True)
        return written

    def _check_owner(self) -> None:
        """Check that the output folder belongs to these boxes and features."""
        owner = self._output / _FEATURES / "owner.json"
        mine = {"boxes_run_id": self._boxes_id, "extractor": self._settings}
        shards = sorted(self._output.glob("shard-*.npz"))
        if not shards:
            claim_folder(self._output, owner, mine, holds="features")
            # Several processes may start the folder at the same moment.
            write_atomically(owner, json.dumps(mine) + "\n", os.getpid())
            return

        # The owner's file goes with the features when the run is finished; the shards stay.
        found = read_header(shards[0]).embedding
        if found is None:
            raise PseudoLabelError(f"{self._output} holds boxes without embeddings")

        there = {"boxes_run_id": found.boxes_run_id, "extractor": found.settings}
        refuse_other_parameters(self._output, "features", there, mine)

    def _parts(self) -> Iterator[_Part]:
        for path in self._shards:
            yield from self._parts_of(path)

    def _parts_of(self, path: Path) -> Iterator[_Part]:
        records, _ = read_shard(path)
        for number, start in enumerate(range(0, len(records), _PART_SIZE)):
            name = f"{path.stem}-{number:06d}.npz"
            yield _Part(self._output / _FEATURES / name, records[start : start + _PART_SIZE])

    def _compute(self, part: _Part) -> None:
        """Compute the features of a part and save them with their boxes."""
        rows = []
        for record in part.records:
            if not len(record.boxes):
                continue
            path = self._root / record.file_name

            image = read_image(path)
            if image.shape[:2] != (record.height, record.width):
                raise PseudoLabelError(
                    f"{path} has {image.shape[1]} x {image.shape[0]} pixels, but its boxes were "
                    f"made on {record.width} x {record.height}; give the folder of those images, "
                    "or make the boxes again"
                )

            rows.append(self._extractor(image, record.boxes))

        features = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
        stream = io.BytesIO()
        # The boxes travel with the features: a continued run proves by them that the features are
        # its own.
        np.savez(stream, features=features, boxes=_stack(part.records))
        write_atomically(part.path, stream.getvalue())

    def _batches(self, parts: Sequence[_Part]) -> Iterator[np.ndarray]:
        for part in tqdm(parts, desc="PCA", unit="part"):
            yield self._features(part)

    def _load(self, part: _Part) -> np.ndarray | None:
        """Read the features (N, F) of a part; None if missing, damaged or of other boxes."""
        try:
            features, boxes = read_arrays(part.path, ("features", "boxes")).values()
        except (OSError, ArrayFileError):
            return None

        same = np.array_equal(boxes, _stack(part.records)) and len(features) == len(boxes)
        return features if same else None

    def _features(self, part: _Part) -> np.ndarray:
        features = self._load(part)
        # The file vanished or was damaged since: one more computation is cheaper than a failed
        # run.
        if features is None:
            self._compute(part)
            features = self._load(part)
        return features


def _stack(records: Sequence[PseudoLabels]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 5), np.float32), *(record.boxes for record in records)])


def _embed(
    records: Sequence[PseudoLabels], features: np.ndarray, reduction: Reduction
) -> Iterator[PseudoLabels]:
    """Add embeddings and clusters to labels."""
    embeddings, clusters = reduction.apply(features)
    start = 0
    for record in records:
        rows = slice(start, start + len(record.boxes))
        start = rows.stop
        yield replace(record, embeddings=embeddings[rows], clusters=clusters[rows])


def embed_folder(
    run: EmbeddingRun,
    settings: FitSettings,
    *,
    given: str | Path | None = None,
    shard: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> bool:
    """Run all steps that can be run now.

    Args:
        run: run to finish.
        settings: settings of the fit.
        given: file of an earlier run's reduction, instead of fitting one.
        shard: (index, number) of this process among those that compute features.
        report: function that gets sentences for the user.

    Returns:
        Whether the run is finished; if not, other processes still compute features.

    Raises:
        PseudoLabelError: see the methods of `EmbeddingRun`.
        ValueError: see the methods of `EmbeddingRun`.
    """
    if not run.is_finished():
        run.compute_features(shard)

    if not run.is_ready():
        report("This part of the features is done; the last process to finish continues.")
        return False

    # Processes that end together would all continue; the first one does, the others find its work
    # done.
    with file_lock(str(run.lock)):
        reduction = run.reduce(settings, given)
        run.write(reduction)

    report(
        f"Reduction {reduction.id}: {len(reduction.matrix)} components, "
        f"{len(reduction.centers)} clusters, fitted on {reduction.about['objects']} boxes, "
        f"{reduction.about['explained_variance']:.1%} of the variance explained."
    )
    return True
