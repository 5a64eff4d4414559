"""Cutting a DOTA folder into tiles on disk: parallel, resumable, atomic; needs no Detectron2.

The output folder::

    images/<image>__<size>__<x>___<y>.png    pixels, losslessly
    labelTxt/<image>__<size>__<x>___<y>.txt  objects in tile pixels, DOTA format without header
    tiles.json                               the index, see rsd2.data.windows.tile_index
    .records/<image>.json                    what was done for each image; parameters.json

A record is written when all tiles of its image are there, the index when all records are. A run
that is killed and started again gives the same files as one that is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rsd2.data.formats.dota import (
    DotaLabels,
    apply_border_policy,
    find_images,
    find_labels,
    format_dota_labels,
    read_dota_labels,
)
from rsd2.data.formats.label_report import LabelProblem, LabelReport
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.folder_run import FolderRun, FolderTakenError, check_shard, claim_folder
from rsd2.io.image_io import read_image, write_image

from .tile_index import INDEX_NAME, Tile, TileIndex, TileSource
from .tiling import (
    TRUNCATED,
    TilingParameters,
    compute_tile_windows,
    crop_window,
    tile_annotations,
    tile_name,
)

_RECORDS = ".records"
# A tile or its unfinished file; the first group is the name of the full image.
_TILE_FILE = re.compile(r"\.?(.+)__\d+__\d+___\d+\.(png|txt)")


@dataclass(frozen=True)
class TileJob:
    """One full image to cut.

    Attributes:
        source_id: its name without extension.
        image: its file.
        label: its label file; None where there is none.
    """

    source_id: str
    image: str
    label: str | None


def write_tiles(
    images_dirs: Sequence[str | Path],
    labels_dirs: Sequence[str | Path] | None,
    output_dir: str | Path,
    parameters: TilingParameters,
    *,
    out_of_image: str = "keep",
    missing_label: str = "empty",
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> TileIndex | None:
    """Cut all images of some folders into tiles.

    Args:
        images_dirs: folders of full images; names must differ over all of them.
        labels_dirs: the label folder of each image folder, or None for a set without labels.
        output_dir: made if missing; may hold an unfinished run with the same parameters.
        parameters: of the tiling.
        out_of_image: ``"keep"``, ``"clip"``, ``"drop"`` or ``"error"``, as in
            ``load_dota_instances``.
        missing_label: ``"empty"``, ``"drop"`` or ``"error"``, as in ``load_dota_instances``.
        num_workers: processes; 0 cuts in this one. Each holds one decoded image.
        shard: (rank, world size): cut each world-size-th image only; all shards may run at once on
            one output folder, and whichever finds all records complete writes the index.
        progress: show a bar.

    Returns:
        the index, as written; None if other shards are not done.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        FolderTakenError: if the output folder belongs to other parameters or other images.
        ValueError: if two images share a name, a policy says ``"error"``, or the shard does not
            exist.
        RuntimeError: if a worker process dies.
    """
    output = Path(output_dir)
    check_shard(shard)
    report = LabelReport()
    jobs = _find_jobs(images_dirs, labels_dirs, missing_label, report)
    settings = parameters.as_dict() | {
        "out_of_image": out_of_image,
        "missing_label": missing_label,
        "has_labels": labels_dirs is not None,
    }
    if missing_label == "error":
        report.raise_if_any(str(labels_dirs), ("image_without_label",))
    _refuse_foreign(jobs)
    _prepare_output(output, settings, jobs, shard[0])

    # One listing of the folders instead of a look at each of their many files.
    present = {path.name for name in ("images", "labelTxt") for path in (output / name).iterdir()}
    suffixes = (".png",) if labels_dirs is None else (".png", ".txt")
    run = FolderRun(
        jobs, lambda job: _load_record(output, job, suffixes, present) is not None, shard
    )
    _clear(output, run.missing)
    cut = partial(
        _cut_image,
        output=output,
        parameters=parameters,
        policy=out_of_image,
        with_labels=labels_dirs is not None,
    )
    run.make(cut, title="tiles", unit="image", num_workers=num_workers, progress=progress)
    return _write_index(output, jobs, settings, report, shard[0])


def _find_jobs(
    images_dirs: Sequence[str | Path],
    labels_dirs: Sequence[str | Path] | None,
    missing_label: str,
    report: LabelReport,
) -> list[TileJob]:
    """All images with their labels, sorted by name."""
    if labels_dirs is not None and len(labels_dirs) != len(images_dirs):
        raise ValueError(
            f"{len(images_dirs)} image folders but {len(labels_dirs)} label folders; give one "
            "label folder for each image folder, in the same order."
        )
    jobs: dict[str, TileJob] = {}
    for index, images_dir in enumerate(images_dirs):
        images = find_images(images_dir, report)
        labels = None
        if labels_dirs is not None:
            labels = find_labels(labels_dirs[index], images, report)
        for name, image in images.items():
            if name in jobs:
                raise ValueError(
                    f"{image} and {jobs[name].image} have the same name, and so would their tiles; "
                    "rename one of them."
                )
            label = None if labels is None else labels.get(name)
            if labels is not None and label is None:
                fate = "dropped" if missing_label == "drop" else "kept"
                message = f"no label file {name!r} in {labels_dirs[index]}"
                report.add("image_without_label", image, None, message, fate)
                if fate == "dropped":
                    continue
            jobs[name] = TileJob(name, str(image), None if label is None else str(label))
    return [jobs[name] for name in sorted(jobs)]


def _refuse_foreign(jobs: list[TileJob]) -> None:
    """Refuse label files of another format before anything is cut."""
    report = LabelReport()
    for job in jobs:
        if job.label is not None and len(read_dota_labels(job.label, report)):
            return
    report.raise_if_any("the images to cut", ("foreign_format",))


def _prepare_output(output: Path, settings: dict, jobs: list[TileJob], rank: int) -> None:
    """Make the folders, and refuse those of another run."""
    records, contents = output / _RECORDS, [output / "images", output / "labelTxt"]
    known = records / "parameters.json"
    claim_folder(output, known, settings, holds="tiles", contents=contents)
    for folder in (*contents, records):
        make_output_folder(folder)
    write_atomically(known, _to_json(settings), rank)

    expected = {f"{job.source_id}.json" for job in jobs} | {"parameters.json"}
    others = sorted(path.name for path in records.glob("*.json") if path.name not in expected)
    if others:
        raise FolderTakenError(
            f"{output} holds tiles of {len(others)} images that are not among the input, for "
            f"example {others[0][:-5]}; give all image folders in one call, or choose another "
            "output folder."
        )


def _cut_image(
    job: TileJob, *, output: Path, parameters: TilingParameters, policy: str, with_labels: bool
) -> None:
    """Write the tiles of one image, then its record."""
    report = LabelReport(max_stored=10**9)
    fingerprint = _fingerprint(job)
    labels = read_dota_labels(job.label, report) if job.label else DotaLabels.empty()
    try:
        image = read_image(job.image)
    except (OSError, ValueError) as error:
        report.add("unreadable_image", job.image, None, str(error))
        source = TileSource(job.source_id, 0, 0, len(labels), len(labels), 0)
        _write_record(output, job, fingerprint, source, [], report)
        return
    height, width = image.shape[:2]
    labels = apply_border_policy(labels, (height, width), policy, job.label or "", report)
    windows, sizes = compute_tile_windows(width, height, parameters)
    cut = tile_annotations(labels.polygons, labels.difficult, (height, width), windows, parameters)
    tiles, seen = [], np.zeros(len(labels), dtype=bool)
    for window, size, (indices, polygons, difficult) in zip(windows, sizes, cut):
        if not len(indices) and not parameters.keep_empty:
            continue
        seen[indices] = True
        x0, y0, x1, y1 = (int(value) for value in window)
        tile = Tile(
            name=tile_name(job.source_id, int(size), x0, y0),
            source_id=job.source_id,
            x=x0,
            y=y0,
            width=x1 - x0,
            height=y1 - y0,
            objects=len(indices),
            truncated=int((difficult == TRUNCATED).sum()),
        )
        # OpenCV's default compression is its fastest, and its files are no larger than others.
        pixels = crop_window(image, window, parameters.pad_color)
        write_image(output / "images" / f"{tile.name}.png", pixels)
        if with_labels:
            names = [labels.names[index] for index in indices]
            text = format_dota_labels(polygons, names, difficult)
            write_atomically(output / "labelTxt" / f"{tile.name}.txt", text.encode("utf-8"))
        tiles.append(tile)
    dropped = len(windows) - len(tiles)
    source = TileSource(job.source_id, width, height, len(labels), int((~seen).sum()), dropped)
    _write_record(output, job, fingerprint, source, tiles, report)


def _fingerprint(job: TileJob) -> dict:
    """What tells a changed input: the image's length and the label file's hash."""
    label = Path(job.label).read_bytes() if job.label else b""
    return {
        "image_bytes": os.path.getsize(job.image),
        "label_sha1": hashlib.sha1(label).hexdigest() if job.label else None,
    }


def _write_record(
    output: Path,
    job: TileJob,
    fingerprint: dict,
    source: TileSource,
    tiles: list[Tile],
    report: LabelReport,
) -> None:
    record = {
        "fingerprint": fingerprint,
        "source": asdict(source),
        "tiles": [asdict(tile) for tile in tiles],
        "problems": [asdict(problem) for problem in report.problems],
        "label_files": report.label_files,
    }
    write_atomically(output / _RECORDS / f"{job.source_id}.json", _to_json(record))


def _load_record(
    output: Path, job: TileJob, suffixes: tuple[str, ...] = (), present: Set[str] = frozenset()
) -> dict | None:
    """The record of an image if it is done and its input unchanged, else None.

    It is void, too, if one of its tiles with one of the suffixes is not among the files present.
    """
    path = output / _RECORDS / f"{job.source_id}.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        # Damaged from outside, for records are written atomically: the image is cut again.
        return None
    if record["fingerprint"] != _fingerprint(job):
        return None
    names = (tile["name"] + suffix for tile in record["tiles"] for suffix in suffixes)
    return record if all(name in present for name in names) else None


def _clear(output: Path, jobs: list[TileJob]) -> None:
    """Remove whatever is there of images that will be cut: half-done, or of an earlier input."""
    names = {job.source_id for job in jobs}
    for job in jobs:
        (output / _RECORDS / f"{job.source_id}.json").unlink(missing_ok=True)
    for folder in ("images", "labelTxt"):
        for path in (output / folder).iterdir():
            match = _TILE_FILE.match(path.name)
            if match and match[1] in names:
                path.unlink()


def _write_index(
    output: Path, jobs: list[TileJob], settings: dict, report: LabelReport, rank: int
) -> TileIndex | None:
    """Merge the records; None if some are missing."""
    records = [_load_record(output, job) for job in jobs]
    if any(record is None for record in records):
        return None
    for record in records:
        report.extend([LabelProblem(**problem) for problem in record["problems"]])
        report.label_files += record["label_files"]
        report.objects += record["source"]["objects"]
    if settings["out_of_image"] == "error":
        report.raise_if_any(str(output), ("outside_image", "crossing_border"))
    index = TileIndex(
        parameters=settings,
        has_labels=settings["has_labels"],
        sources=[TileSource(**record["source"]) for record in records],
        tiles=[Tile(**tile) for record in records for tile in record["tiles"]],
        report=report.as_dict(),
    )
    write_atomically(output / INDEX_NAME, index.to_json().encode("utf-8"), rank)
    return index


def _to_json(content: dict) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode("utf-8")
