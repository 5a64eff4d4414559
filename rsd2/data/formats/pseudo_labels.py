"""Files of pseudo-labels: boxes that a method proposed, stored together with their embeddings.

A run over a folder of images leaves shards, ``shard-00000-of-00004.npz``. A shard holds the images
i, i + n, i + 2n, ... of the sorted list, all arrays concatenated over its images, and a header in
JSON. Boxes and embeddings of an object are rows of equal number in one file, and the header has the
hash of the boxes, so that neither can be changed without the other. Nothing in it is a pickle.

=================  ======================  =========================================================
array              shape, dtype            content
=================  ======================  =========================================================
``header``         (bytes,) uint8          UTF-8 JSON: `ShardHeader`, format, version, hash of boxes
``file_names``     (I,) unicode            relative to the folder of images, with ``/``
``sizes``          (I, 2) int64            height and width of the images
``counts``         (I,) int64              boxes of each image
``boxes``          (N, 5) float32          canonical (cx, cy, w, h, a), pixels and degrees
``scores``         (N,) float32            scores from the source of the boxes
``areas``          (N,) float32            optional: pixels of the masks
``embeddings``     (N, D) float32          optional: unit vectors
``clusters``       (N,) int64              optional, with embeddings only: 0 to clusters - 1
=================  ======================  =========================================================

Shapes: I images, N objects (of a shard or of one image), D embedding dimension.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.io.arrays import ArrayFileError, read_arrays
from rsd2.io.files import write_atomically

FORMAT = "rsd2-pseudo-labels"
VERSION = 1
_SHARD_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.npz")
_OPTIONAL = {"areas": np.float32, "embeddings": np.float32, "clusters": np.int64}
# Tolerance of squared lengths; float32 vectors of some thousand dimensions stay well within it.
_UNIT_TOLERANCE = 1e-3
_APART = "each run in a folder of its own"


class PseudoLabelError(ValueError):
    """A file of pseudo-labels is missing, damaged, or of another run."""


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """The pseudo-labels of one image.

    Attributes:
        file_name: file name of the image, relative to the folder of images, with ``/``.
        height: height of the image, pixels.
        width: width of the image, pixels.
        boxes: (N, 5) float32 canonical boxes, pixels and degrees; N >= 0.
        scores: (N,) float32, the higher the better.
        areas: (N,) float32 pixels of the masks that the boxes enclose, or None.
        embeddings: (N, D) float32 unit vectors, or None.
        clusters: (N,) int64 pseudo-classes, or None.
    """

    file_name: str
    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    clusters: np.ndarray | None = None


@dataclass(frozen=True)
class EmbeddingHeader:
    """Where the embeddings of a run come from.

    Attributes:
        run_id: identifier of the embedding run, a hash of its settings and of the boxes.
        boxes_run_id: identifier of the run whose boxes were embedded.
        reduction_id: hash of the file of PCA and cluster centres.
        dim: D.
        num_clusters: number of pseudo-classes.
        settings: settings of the tool, plain values.
    """

    run_id: str
    boxes_run_id: str
    reduction_id: str
    dim: int
    num_clusters: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says about itself and its run.

    Attributes:
        run_id: identifier of the run that made the boxes, see `rsd2.io.folder_run.make_run_id`;
            equal in all shards of a run.
        num_images: number of images of the whole run, unreadable ones included.
        shard: number of this shard, from 0.
        num_shards: number of shards of the run.
        settings: settings of the tool that made the boxes, plain values.
        skipped: images of this shard that could not be read: {file name: reason}.
        counts: counts of this shard: what was proposed, and what was removed and why.
        embedding: None if the run has no embeddings yet.
    """

    run_id: str
    num_images: int
    shard: int = 0
    num_shards: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    embedding: EmbeddingHeader | None = None


def shard_name(shard: int, num_shards: int) -> str:
    """Return the name of the file of a shard (from 0), like ``shard-00000-of-00004.npz``."""
    return f"shard-{shard:05d}-of-{num_shards:05d}.npz"


def write_shard(path: str | Path, records: Sequence[PseudoLabels], header: ShardHeader) -> None:
    """Write a shard, whole or not at all; equal arguments give equal bytes.

    Args:
        path: path of the file, named by `shard_name`; replaced if it exists.
        records: records of the images; ``areas``, ``embeddings`` and ``clusters`` are given by all
            or none.
        header: header of the shard.

    Raises:
        PseudoLabelError: if arrays of an image differ in length or type, boxes or scores are not
            finite, embeddings are no unit vectors, or header and embeddings contradict each other.
    """
    where = f"{Path(path).name} (to be written)"
    present = _present(records, where)
    # Concatenated over the images, because an npz entry for each image would be slow to open.
    arrays = {
        "file_names": np.array([record.file_name for record in records], dtype=np.str_),
        "sizes": np.array([(r.height, r.width) for r in records], dtype=np.int64).reshape(-1, 2),
        "counts": np.array([len(record.boxes) for record in records], dtype=np.int64),
    }
    for name in ("boxes", "scores", *present):
        dtype = _OPTIONAL.get(name, np.float32)
        rows = [np.asarray(getattr(record, name), dtype=dtype) for record in records]
        empty = np.zeros((0, 5) if name == "boxes" else (0,), dtype)
        try:
            arrays[name] = np.concatenate(rows or [empty])
        except ValueError as error:
            raise PseudoLabelError(f"{where}: {name} do not fit together: {error}") from error

    # Checked before writing with the same rules as after reading: no file that cannot be read.
    _check_content(arrays, header, where)
    content = {"format": FORMAT, "version": VERSION, "boxes_sha256": _digest(arrays)}
    content |= asdict(header)
    text = json.dumps(content, sort_keys=True).encode("utf-8")
    stream = io.BytesIO()
    # As values of any type: numpy's own options are passed by name, too, and are of other types.
    members: dict[str, Any] = {"header": np.frombuffer(text, dtype=np.uint8), **arrays}
    np.savez(stream, **members)
    write_atomically(path, stream.getvalue())


def read_header(path: str | Path) -> ShardHeader:
    """Read what a shard says about itself, without its arrays.

    Args:
        path: path of the shard.

    Returns:
        the header.

    Raises:
        PseudoLabelError: if the file is missing, damaged, or of another format.
    """
    return _parse_header(_load(path, ("header",))["header"], path)[0]


def read_shard(path: str | Path) -> tuple[list[PseudoLabels], ShardHeader]:
    """Read a shard and check that its arrays belong together.

    Args:
        path: path of the shard.

    Returns:
        (the images in the order of the file, the header). Arrays are views of the whole shard's.

    Raises:
        PseudoLabelError: if the file is missing, damaged, of another format, or its arrays do not
            belong together.
    """
    arrays = _load(path)
    header, digest = _parse_header(arrays.pop("header", np.zeros(0, np.uint8)), path)
    needed = {"file_names", "sizes", "counts", "boxes", "scores"}
    if needed - arrays.keys():
        raise PseudoLabelError(f"{path} lacks the arrays {sorted(needed - arrays.keys())}")
    # Shapes before the hash, so that a damaged file is told from a changed one.
    _check_content(arrays, header, str(path))
    if digest != _digest(arrays):
        raise PseudoLabelError(
            f"the boxes of {path} are not those it was written with, so embeddings may belong to "
            "others; make the file again"
        )

    optional = [name for name in _OPTIONAL if name in arrays]
    ends = np.cumsum(arrays["counts"])
    records = []
    for index, name in enumerate(arrays["file_names"]):
        rows = slice(int(ends[index] - arrays["counts"][index]), int(ends[index]))
        height, width = (int(side) for side in arrays["sizes"][index])
        values = {key: arrays[key][rows] for key in ("boxes", "scores", *optional)}
        records.append(PseudoLabels(str(name), height, width, **values))

    return records, header


def read_folder(folder: str | Path) -> tuple[list[PseudoLabels], ShardHeader]:
    """Read all shards of a run.

    Args:
        folder: folder that holds the shards of one run and no others.

    Returns:
        (all images, sorted by file name; the header of shard 0 with ``skipped`` and ``counts`` of
        all shards).

    Raises:
        PseudoLabelError: if there is no shard, one is missing or damaged, they are of several
            runs, or an image is missing or repeated; the message names the files.
    """
    paths = find_shards(folder)
    shards = [read_shard(path) for path in paths]
    first = shards[0][1]
    # Every shard against the first one: settings and run have to agree, counts may differ.
    for path, (_, header) in zip(paths, shards):
        _check_same_run(path, header, paths[0], first)
    records = sorted((r for found, _ in shards for r in found), key=lambda r: r.file_name)
    skipped = {name: why for _, header in shards for name, why in header.skipped.items()}
    # Both the sum and the set: an image in two shards may hide one that is missing.
    names = {record.file_name for record in records} | skipped.keys()
    if len(records) + len(skipped) != first.num_images or len(names) != first.num_images:
        raise PseudoLabelError(
            f"the shards in {folder} hold {len(names)} different images, their run has "
            f"{first.num_images}; make them again in an empty folder"
        )

    counts = sum((Counter(header.counts) for _, header in shards), Counter())
    return records, replace(first, skipped=dict(sorted(skipped.items())), counts=dict(counts))


def find_shards(folder: str | Path) -> list[Path]:
    """List the shards of a folder, all of one run as far as their names tell.

    Args:
        folder: folder to look at.

    Returns:
        the files in the order of their numbers.

    Raises:
        PseudoLabelError: if there is none, their names state different numbers of shards, or some
            are missing.
    """
    paths = sorted(p for p in Path(folder).glob("shard-*.npz") if _SHARD_NAME.fullmatch(p.name))
    if not paths:
        raise PseudoLabelError(
            f"there are no pseudo-labels (shard-*.npz) in {Path(folder).absolute()}; "
            "projects/MutDet/tools/make_pseudo_labels.py makes them"
        )
    # The names are compared before any file is opened, which for a large run takes minutes.
    totals = {match[2] for path in paths if (match := _SHARD_NAME.fullmatch(path.name))}
    if len(totals) > 1:
        raise PseudoLabelError(
            f"{folder} holds shards of several runs: of {' and of '.join(sorted(totals))}; keep "
            f"{_APART}"
        )

    # A run that was interrupted leaves fewer shards than their names announce.
    count = int(totals.pop())
    missing = {shard_name(i, count) for i in range(count)} - {path.name for path in paths}
    if missing:
        names = ", ".join(sorted(missing)[:5])
        raise PseudoLabelError(
            f"{folder} lacks {names} ({len(missing)} of {count} shards); finish the run"
        )

    return paths


def _load(path: str | Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Load arrays of an npz file, without pickles."""
    try:
        return read_arrays(path, names)
    except FileNotFoundError:
        raise PseudoLabelError(f"there is no file {path}") from None
    except ArrayFileError as error:
        raise PseudoLabelError(
            f"{path} cannot be read ({error.__cause__}); it is damaged or not a file of "
            "pseudo-labels: delete it and run the command that made it again"
        ) from error


def _parse_header(data: np.ndarray, path: str | Path) -> tuple[ShardHeader, str]:
    try:
        # A header of another version may lack any field, or have others.
        content = json.loads(data.tobytes().decode("utf-8"))
        found = (content.pop("format"), content.pop("version"))
        if found != (FORMAT, VERSION):
            raise ValueError(f"format and version are {found}, not {(FORMAT, VERSION)}")
        digest, embedding = content.pop("boxes_sha256"), content.pop("embedding")
        embedding = None if embedding is None else EmbeddingHeader(**embedding)
        return ShardHeader(embedding=embedding, **content), digest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PseudoLabelError(
            f"{path} has no header of pseudo-labels that this version reads: {error}"
        ) from error


def _present(records: Sequence[PseudoLabels], where: str) -> list[str]:
    """Return the optional arrays that all images have; raise unless each has a row per box."""
    present = []
    for name in _OPTIONAL:
        having = [record for record in records if getattr(record, name) is not None]
        if having and len(having) != len(records):
            lacking = next(r.file_name for r in records if getattr(r, name) is None)
            raise PseudoLabelError(f"{where}: {lacking} has no {name}, other images do")
        if having:
            present.append(name)

    for record in records:
        for name in ("scores", *present):
            if len(getattr(record, name)) != len(record.boxes):
                raise PseudoLabelError(
                    f"{where}: {record.file_name} has {len(record.boxes)} boxes but "
                    f"{len(getattr(record, name))} {name}"
                )

    return present


def _check_content(arrays: Mapping[str, np.ndarray], header: ShardHeader, where: str) -> None:
    """Raise if the arrays do not belong together."""
    total, count, embedding = int(arrays["counts"].sum()), len(arrays["counts"]), header.embedding
    found = {"embeddings" in arrays, "clusters" in arrays}
    if count and found != {embedding is not None}:
        raise PseudoLabelError(
            f"{where}: embeddings, clusters and their part of the header go together; there are "
            f"{sorted(arrays)} and the header {embedding}"
        )

    shapes = {"file_names": (count,), "sizes": (count, 2), "boxes": (total, 5), "scores": (total,)}
    shapes |= {"areas": (total,), "clusters": (total,)}
    shapes["embeddings"] = (total, embedding.dim if embedding else -1)
    for name, array in arrays.items():
        if array.shape != shapes.get(name, array.shape):
            raise PseudoLabelError(
                f"{where}: {name} has shape {array.shape}, its counts and header say {shapes[name]}"
            )

    for name in ("boxes", "scores", "embeddings"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise PseudoLabelError(f"{where}: {name} holds NaN or infinite numbers")
    if total and arrays["boxes"][:, 2:4].min() <= 0:
        raise PseudoLabelError(f"{where}: a side of a box is not positive")
        # In float64: the sum of squares over D would lose digits in float32.
    if embedding is not None and total:
        squares = np.square(arrays["embeddings"].astype(np.float64)).sum(axis=1)
        if np.abs(squares - 1).max() > _UNIT_TOLERANCE:
            raise PseudoLabelError(f"{where}: embeddings are not unit vectors")
        low, high = int(arrays["clusters"].min()), int(arrays["clusters"].max())
        if low < 0 or high >= embedding.num_clusters:
            message = f"clusters {low} to {high}, the header has {embedding.num_clusters}"
            raise PseudoLabelError(f"{where}: {message}")


def _check_same_run(path: Path, header: ShardHeader, first: Path, reference: ShardHeader) -> None:
    # Under another name a shard would stand for images that it does not hold.
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None or (header.shard, header.num_shards) != (int(match[1]), int(match[2])):
        raise PseudoLabelError(
            f"{path} says that it is {shard_name(header.shard, header.num_shards)}; it was renamed"
        )

    # Skipped files and counts belong to one shard, everything else to the run.
    mine, other = (replace(h, shard=0, skipped={}, counts={}) for h in (header, reference))
    if mine != other:
        one, two = (h.embedding.run_id if h.embedding else h.run_id for h in (header, reference))
        raise PseudoLabelError(f"{path} is of run {one}, {first} of run {two}; keep {_APART}")


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash the boxes and the names of their images."""
    # File names are part of the hash, because boxes of another image may be equal.
    result = hashlib.sha256("\0".join(arrays["file_names"].tolist()).encode("utf-8"))
    for name in ("counts", "boxes"):
        result.update(np.ascontiguousarray(arrays[name]).tobytes())
    return result.hexdigest()
