"""What a dataset dict must have, and what stands for the rest: the one definition for all users.

A dict has ``file_name``, ``image_id``, ``height`` and ``width``, and unless labels are hidden
``annotations``. An annotation has ``category_id`` and ``bbox`` with its ``bbox_mode``; ``poly``
(8 numbers, pixels) says more than the box, ``difficult`` is 0 if it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode

from rsd2.structures import boxes_to_corners


def check_record(record: Mapping[str, Any], *keys: str) -> None:
    """Refuse a dataset dict that lacks what its user needs.

    Args:
        record: a dataset dict.
        keys: that have to be there.

    Raises:
        ValueError: naming the record and the first missing key.
    """
    for key in keys:
        if key not in record:
            names = [f"{k} {record[k]!r}" for k in ("file_name", "image_id") if k in record]
            raise ValueError(
                f"the dataset dict of {' and '.join(names) or f'the keys {sorted(record)}'} has no "
                f"{key!r}; the function that the data set is registered with has to fill it"
            )


def polygon_of(annotation: Mapping[str, Any], image: object) -> np.ndarray:
    """Quadrilateral of an annotation, whichever way its place is given.

    Args:
        annotation: with ``poly`` (8 numbers), a rotated ``bbox`` (5 numbers), or an upright one
            (4 numbers) that says its ``bbox_mode``.
        image: that it belongs to, for messages.

    Returns:
        (4, 2) float64 xy in pixels: ``poly``, else the corners of the box.

    Raises:
        ValueError: if there is none of them, or ``poly`` has another length.
    """
    if annotation.get("poly") is not None:
        polygon = np.asarray(annotation["poly"], dtype=np.float64)
        if polygon.size != 8:
            raise ValueError(
                f"an object of image {image!r} has {polygon.size} numbers in 'poly'; a "
                "quadrilateral has 4 vertices, x1 y1 ... x4 y4"
            )
        return polygon.reshape(4, 2)

    box, mode = [float(value) for value in annotation.get("bbox", ())], annotation.get("bbox_mode")
    if len(box) == 5:
        return boxes_to_corners(torch.tensor(box, dtype=torch.float64)).numpy()
    if len(box) == 4 and mode in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        x0, y0, x1, y1 = BoxMode.convert(box, BoxMode(mode), BoxMode.XYXY_ABS)
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)
    raise ValueError(
        f"an object of image {image!r} has neither 'poly' (8 numbers) nor a rotated 'bbox' (5 "
        f"numbers) nor an upright one (4 numbers) with its 'bbox_mode': {dict(annotation)}"
    )
