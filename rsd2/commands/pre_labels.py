"""Detections as labels of an annotation tool, to be corrected there instead of drawn anew."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from rsd2.data.formats.label_format import LOSSES, FileForAll, LabelledImage, LabelledObject
from rsd2.data.formats.rectangles import rectangle_corners
from rsd2.data.formats.registry import LABEL_FORMATS
from rsd2.inference.prediction_files import JSON_NAME
from rsd2.io.text import read_json

STEM = "pre_labels"


def pre_labels_path(folder: str | Path, name: str) -> Path:
    """Choose the path for the pre-labels of a run, before the run begins.

    Args:
        folder: output folder of the run.
        name: a key of ``LABEL_FORMATS``.

    Returns:
        path of the file, or of a folder if the format has a file for each image.

    Raises:
        ValueError: if the path exists, because its labels may have been corrected by hand.
    """
    is_one = isinstance(LABEL_FORMATS[name], FileForAll)
    ending = (".xml" if name == "cvat" else ".json") if is_one else ""

    path = Path(folder) / f"{STEM}{ending}"
    if path.exists():
        raise ValueError(
            f"{path} is there already and may hold corrected labels; move it or choose another "
            "output folder"
        )

    return path


def write_pre_labels(folder: str | Path, name: str) -> str:
    """Write the detections of a run as labels.

    Args:
        folder: output folder of the run, with ``detections.json``.
        name: a key of ``LABEL_FORMATS``.

    Returns:
        text that says what was written and, on a line each, what the format cannot hold.

    Raises:
        ValueError: if there are pre-labels already.
    """
    path, one = pre_labels_path(folder, name), LABEL_FORMATS[name]
    content = read_json(Path(folder) / JSON_NAME)
    records = content["images"]

    # Names relative to the folder that holds all images, as tools show them.
    parents = [os.path.dirname(os.path.abspath(record["file"])) for record in records]
    root = os.path.commonpath(parents) if parents else ""
    images = [
        LabelledImage(
            Path(os.path.relpath(os.path.abspath(record["file"]), root)).as_posix(),
            record["height"],
            record["width"],
            [_to_object(found) for found in record["detections"]],
        )
        for record in records
    ]

    losses = one.write(path, images, classes=content["classes"])
    lines = [f"pre-labels for {one.title}: {path}"]
    lines += [f"NOT CARRIED OVER: {number} {LOSSES[key]}" for key, number in losses.items()]
    return "\n".join(lines)


def _to_object(found: dict) -> LabelledObject:
    # From the box, because the rounded corners of the polygon are not exactly a rectangle.
    cx, cy, width, height, degrees = found["box"]
    corners = rectangle_corners(cx, cy, width, height, -math.radians(degrees))
    return LabelledObject(np.reshape(corners, (4, 2)), found["class"], score=found["score"])
