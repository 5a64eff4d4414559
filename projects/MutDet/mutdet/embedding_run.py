"""A run of embedding: pseudo-boxes in, the same boxes with embeddings and pseudo-classes out.

Four steps, each of which is saved, so that a killed run continues where it was:

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
import zipfile
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
    """How PCA and k-means are fitted; see ``fit_reduction``.

    Attributes:
        dim: components.
        num_clusters: pseudo-classes.
        whiten: divide components by their deviations. Which the official code did is not known; on
            generated scenes it makes clusters purer.
        kmeans: ``"minibatch"`` or ``"full"``.
        max_samples: objects that k-means sees.
        seed: of sample and k-means.
    """

    dim: int = 256
    num_clusters: int = 256
    whiten: bool = True
    kmeans: str = "minibatch"
    max_samples: int = 200_000
    seed: int = 0


@dataclass(frozen=True)
class _Part:
    """Images of a shard whose features are in one file."""

    path: Path
    records: Sequence[PseudoLabels]

    @property
    def rows(self) -> int:
        return sum(len(record.boxes) for record in self.records)


class EmbeddingRun:
    """The embedding of one run of boxes."""

    def __init__(
        self,
        boxes: str | Path,
        image_root: str | Path,
        output: str | Path,
        extractor: FeatureExtractor,
    ) -> None:
        """Check the folders against each other; nothing is computed yet.

        Args:
            boxes: folder of the finished shards of ``make_pseudo_labels.py``.
            image_root: folder of the images that they were made on.
            output: another folder, made if missing; may hold an unfinished run of the same boxes
                and extractor.
            extractor: of the features.

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
                f"{others[0]} is of another run than {self._shards[0]}; keep each run in a folder "
                "of its own"
            )
        if headers[0].embedding is not None:
            raise PseudoLabelError(f"{boxes} has embeddings already; give the folder of the boxes")
        if self._output.resolve() == Path(boxes).resolve():
            raise PseudoLabelError(f"write to another folder than that of the boxes, {boxes}")
        self._settings = json.loads(json.dumps(extractor.settings()))
        self._features_id = make_run_id(self._settings, [self._boxes_id])
        make_output_folder(self._output / _FEATURES)
        self._check_owner()

    @property
    def lock(self) -> Path:
        """Path whose lock is held while features become shards."""
        return self._output / _FEATURES / "finish"

    def compute_features(self, shard: tuple[int, int] = (0, 1), *, progress: bool = True) -> None:
        """Compute the features that are missing.

        Args:
            shard: (index, number): every number-th part.
            progress: show a bar.

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
        """Whether all features are there, those of other processes too, or the run is finished."""
        return self.is_finished() or all(part.path.is_file() for part in self._parts())

    def is_finished(self) -> bool:
        """Whether all shards are written with the reduction that is there."""
        return all((self._output / path.name).is_file() for path in self._shards)

    def reduce(self, settings: FitSettings, given: str | Path | None = None) -> Reduction:
        """Fit the reduction, or take up the one that is there or given.

        Args:
            settings: of the fitting.
            given: a file of an earlier run, on this or other images, with the same extractor.

        Returns:
            the reduction.

        Raises:
            PseudoLabelError: if the reduction there or given was fitted on other features, or with
                other settings.
            ValueError: if there are too few boxes for it.
        """
        path = self._output / REDUCTION
        about = {"extractor": self._settings}
        if given is not None:
            found = load_reduction(given)
            if found.about.get("extractor") != self._settings:
                raise PseudoLabelError(
                    f"{given} was fitted on features of {found.about.get('extractor')}, these are "
                    f"of {self._settings}"
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
                    f"{path} was fitted with {there}, asked for is {wanted}; choose another output "
                    "folder, or delete it"
                )
            return found
        parts = list(self._parts())
        total = sum(part.rows for part in parts)
        reduction = fit_reduction(self._batches(parts), total, about=about, **asdict(settings))
        reduction.save(path)
        return load_reduction(path)

    def write(self, reduction: Reduction, *, progress: bool = True) -> list[Path]:
        """Write the shards that are missing, then remove the features.

        Args:
            reduction: to apply.
            progress: show a bar.

        Returns:
            all shards.

        Raises:
            PseudoLabelError: if a shard there is of another reduction.
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
        """Refuse an output folder of other boxes or features."""
        owner = self._output / _FEATURES / "owner.json"
        mine = {"boxes_run_id": self._boxes_id, "extractor": self._settings}
        shards = sorted(self._output.glob("shard-*.npz"))
        if not shards:
            claim_folder(self._output, owner, mine, holds="features")
            # Several processes may begin the folder at the same moment.
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
        """Features of a part, saved with the boxes that they belong to."""
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
        np.savez(stream, features=features, boxes=_stack(part.records))
        write_atomically(part.path, stream.getvalue())

    def _batches(self, parts: Sequence[_Part]) -> Iterator[np.ndarray]:
        for part in tqdm(parts, desc="PCA", unit="part"):
            yield self._features(part)

    def _load(self, part: _Part) -> np.ndarray | None:
        """Features (N, F) of a part; None if they are missing, damaged or of other boxes."""
        try:
            with np.load(part.path, allow_pickle=False) as content:
                features, boxes = content["features"], content["boxes"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        same = np.array_equal(boxes, _stack(part.records)) and len(features) == len(boxes)
        return features if same else None

    def _features(self, part: _Part) -> np.ndarray:
        features = self._load(part)
        if features is None:
            self._compute(part)
            features = self._load(part)
        return features


def _stack(records: Sequence[PseudoLabels]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 5), np.float32), *(record.boxes for record in records)])


def _embed(
    records: Sequence[PseudoLabels], features: np.ndarray, reduction: Reduction
) -> Iterator[PseudoLabels]:
    """The same labels with embeddings and clusters."""
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
    """Do whatever of a run can be done.

    Args:
        run: to finish.
        settings: of the fitting.
        given: a reduction of an earlier run instead of fitting.
        shard: (index, number) of this process among those that compute features.
        report: gets sentences for the user.

    Returns:
        whether the run is finished; if not, other processes still compute features.

    Raises:
        PseudoLabelError: see the methods of `EmbeddingRun`.
        ValueError: see the methods of `EmbeddingRun`.
    """
    if not run.is_finished():
        run.compute_features(shard)
    if not run.is_ready():
        report("This part of the features is done; the last process to finish goes on.")
        return False
    # Processes that end together would all go on; the first does, the others find it done.
    with file_lock(str(run.lock)):
        reduction = run.reduce(settings, given)
        run.write(reduction)
    report(
        f"Reduction {reduction.id}: {len(reduction.matrix)} components, "
        f"{len(reduction.centers)} clusters, fitted on {reduction.about['objects']} boxes, "
        f"{reduction.about['explained_variance']:.1%} of the variance explained."
    )
    return True
