"""DOTA's Task 1 submission files: written for the server, or read to score them here.

A submission is a zip with one ``Task1_<class>.txt`` per class at its top level; each line is
``image score x1 y1 x2 y2 x3 y3 x4 y4`` in pixels of the full image.

Shapes: D detections.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rsd2.data.formats.values import parse_number
from rsd2.evaluation.scoring.dota import (
    COCO_IOU_THRESHOLDS,
    Detections,
    DotaScores,
    GroundTruth,
    score_detections,
)
from rsd2.io.files import write_atomically
from rsd2.io.text import decode_text, read_text, split_lines

# Nine significant digits give a float32 score back exactly; a ten-thousandth of a pixel is far
# below the precision of a label.
_LINE = "{} {:.9g}" + " {:.4f}" * 8 + "\n"


def write_task1_zip(
    path: str | Path,
    image_ids: Sequence[str],
    class_names: Sequence[str],
    detections: Detections,
) -> None:
    """Write a submission for the DOTA server's Task 1, all of it or nothing.

    Args:
        path: path of the zip to make; an existing one is replaced.
        image_ids: names that ``detections.image_index`` indexes.
        class_names: names that ``detections.class_index`` indexes; a class without detections
            gets an empty file.
        detections: detections on full images.

    Raises:
        ValueError: an image id contains white space, which the format cannot express, or a
            class name a path separator.
        OSError: the folder cannot be written.
    """
    check_task1_names(image_ids, class_names)
    numbers = np.column_stack([detections.scores, detections.corners().reshape(-1, 8)])
    # In memory first, so that the file appears complete or not at all.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, name in enumerate(class_names):
            (rows,) = np.nonzero(detections.class_index == label)
            names = detections.image_index[rows].tolist()
            lines = [
                _LINE.format(image_ids[image], *values)
                for image, values in zip(names, numbers[rows].tolist())
            ]
            archive.writestr(f"Task1_{name}.txt", "".join(lines))

    write_atomically(path, buffer.getvalue())


def read_task1(
    path: str | Path, image_ids: Sequence[str], class_names: Sequence[str]
) -> Detections:
    """Read Task 1 files of any toolbox as polygons.

    Args:
        path: a zip, or a folder that holds the text files.
        image_ids: ids of the ground truth.
        class_names: names of the classes; the file of each must be there.

    Returns:
        The detections, class by class in the order of the files.

    Raises:
        FileNotFoundError: the path or the file of a class is missing.
        ValueError: the zip is broken, there is a file of another class, a line is malformed, a
            number is not finite or an image is not in the ground truth; the message names file and
            line.
    """
    _refuse_other_classes(Path(path), class_names)
    index_of = {name: index for index, name in enumerate(image_ids)}
    images, classes, rows = [], [], []
    for label, name in enumerate(class_names):
        text = _read_member(Path(path), f"Task1_{name}.txt")
        for number, line in enumerate(split_lines(text), start=1):
            if not line.strip():
                continue

            image, values = _parse_line(line, f"{path}: Task1_{name}.txt, line {number}")
            if image not in index_of:
                raise ValueError(
                    f"{path}: Task1_{name}.txt, line {number}: image {image!r} is not in the "
                    "ground truth; score the file on the split it was made for"
                )

            images.append(index_of[image])
            classes.append(label)
            rows.append(values)

    numbers = np.array(rows, dtype=np.float64).reshape(-1, 9)
    return Detections(
        image_index=np.array(images, dtype=np.int64),
        class_index=np.array(classes, dtype=np.int64),
        scores=numbers[:, 0],
        polygons=numbers[:, 1:].reshape(-1, 4, 2),
    )


def score_task1(
    path: str | Path,
    dataset_dicts: Sequence[dict],
    class_names: Sequence[str],
    *,
    iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
    ap_method: str = "voc07",
    difficult_policy: str = "v1.0",
) -> DotaScores:
    """Score the Task 1 files of any toolbox on labelled images.

    Args:
        path: a zip or a folder, see :func:`read_task1`.
        dataset_dicts: dicts of the full images, see :meth:`GroundTruth.from_dicts`.
        class_names: names that ``category_id`` indexes.
        iou_thresholds: see :func:`score_detections`, as the next two.
        ap_method: ``"voc07"`` or ``"area"``.
        difficult_policy: ``"v1.0"``, ``"v1.5"`` or ``"count-all"``.

    Returns:
        The scores.
    """
    ground_truth = GroundTruth.from_dicts(dataset_dicts, class_names)
    detections = read_task1(path, ground_truth.image_ids, ground_truth.class_names)
    return score_detections(
        ground_truth,
        detections,
        iou_thresholds=iou_thresholds,
        ap_method=ap_method,
        difficult_policy=difficult_policy,
    )


def check_task1_names(image_ids: Sequence[str], class_names: Sequence[str]) -> None:
    """Check that Task 1 files can hold the names.

    Args:
        image_ids: names of the images.
        class_names: names of the classes.

    Raises:
        ValueError: a name does not fit; the message names the first.
    """
    for name in image_ids:
        if not name or any(character.isspace() for character in name):
            raise ValueError(
                f"image id {name!r} is empty or contains white space, which separates the fields "
                "of a Task 1 line; rename the image"
            )

    for name in class_names:
        if "/" in name or "\\" in name:
            raise ValueError(f"class name {name!r} contains a path separator; rename the class")


def _refuse_other_classes(path: Path, class_names: Sequence[str]) -> None:
    """Raise an error about files of unknown classes, whose detections nobody would score."""
    if not path.exists():
        raise FileNotFoundError(f"there is no submission {path}; give a zip or a folder")

    if path.is_dir():
        found = {member.name for member in path.iterdir()}
    else:
        with _open_zip(path) as archive:
            found = set(archive.namelist())

    known = {f"Task1_{name}.txt" for name in class_names}
    others = sorted(name for name in found - known if name.startswith("Task1_"))
    if others:
        raise ValueError(
            f"{path}: {others[0]} is of no class of the ground truth ({', '.join(class_names)}); "
            "rename it, or take it out"
        )


def _read_member(path: Path, name: str) -> str:
    if path.is_dir():
        member = path / name
        if not member.is_file():
            raise FileNotFoundError(f"{path} holds no {name}; a class without detections needs one")
        return read_text(member)

    with _open_zip(path) as archive:
        if name not in archive.namelist():
            raise FileNotFoundError(
                f"{path} holds no {name} at its top level; a class without detections needs one"
            )
        return decode_text(archive.read(name), f"{path}: {name}")


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip; what is broken in it, or encrypted, becomes an error that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or no zip ({error}); write it again") from error


def _parse_line(line: str, where: str) -> tuple[str, list[float]]:
    fields = line.split()
    if len(fields) != 10:
        raise ValueError(f"{where}: {len(fields)} fields instead of 'image score x1 y1 ... x4 y4'")

    try:
        values = [parse_number(field) for field in fields[1:]]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error

    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{where}: a number is not finite: {line.strip()}")
    return fields[0], values
