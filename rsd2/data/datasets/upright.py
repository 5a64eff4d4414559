"""Data sets of rotated boxes as data sets of upright ones, for detectors that know no angle."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.dataset_dicts import check_record, polygon_of

_UNUSED = ("poly", "difficult", "area")


def make_upright(records: Iterable[dict]) -> list[dict]:
    """Enclose every object by an upright box, cut at the border of the image.

    Args:
        records: dataset dicts of images or tiles with ``height``, ``width`` and, unless labels are
            hidden, ``annotations``, each with ``poly`` (8 floats, pixels) or else a rotated
            ``bbox`` (cx, cy, w, h, degrees); not changed.

    Returns:
        The dicts with ``annotations`` as of ``load_coco_boxes``: ``bbox`` (x, y, width, height),
        ``area`` of it, ``iscrowd`` 0. Objects of every difficulty count alike; those wholly outside
        the image are left out.

    Raises:
        ValueError: a box has neither 5 numbers nor a polygon; its image is named.
    """
    return [_upright_record(record) for record in records]


def register_upright(name: str, source_name: str, metadata: dict | None = None) -> None:
    """Register the upright boxes of a registered data set.

    Args:
        name: for Detectron2's catalogs.
        source_name: of the data set with rotated boxes, which is read when this one is.
        metadata: beside ``thing_classes``, which are the source's; of tiles, ``source_dataset`` is
            the upright data set of the whole images.
    """
    DatasetCatalog.register(name, partial(_load_upright, source_name))
    classes = MetadataCatalog.get(source_name).thing_classes
    MetadataCatalog.get(name).set(thing_classes=classes, **(metadata or {}))


def _load_upright(source_name: str) -> list[dict]:
    return make_upright(DatasetCatalog.get(source_name))


def _upright_record(record: dict) -> dict:
    if "annotations" not in record:  # hidden labels stay hidden, which is not the same as none
        return record
    check_record(record, "file_name", "height", "width")
    annotations, size = [], (record["width"], record["height"])
    for annotation in record["annotations"]:
        corners = _corners(annotation, record)
        low, high = np.clip([corners.min(axis=0), corners.max(axis=0)], 0, size)
        width, height = (high - low).tolist()
        if width <= 0 or height <= 0:
            continue
        kept = {key: value for key, value in annotation.items() if key not in _UNUSED}
        box = {"bbox": [*low.tolist(), width, height], "bbox_mode": BoxMode.XYWH_ABS}
        annotations.append({**kept, **box, "area": width * height, "iscrowd": 0})
    return {**record, "annotations": annotations}


def _corners(annotation: dict, record: dict) -> np.ndarray:
    """(4, 2) xy pixels."""
    if annotation.get("poly") is None and len(annotation["bbox"]) != 5:
        raise ValueError(
            f"a box of {record['file_name']} is {list(annotation['bbox'])}, which is no rotated "
            "one; register_upright is for data sets of rotated boxes"
        )
    return polygon_of(annotation, record["file_name"])
