"""Definition of dataset dicts, shared by all users: their keys and the meaning of absent keys.

A dict has ``file_name``, ``image_id``, ``height`` and ``width``, and ``annotations`` unless labels
are hidden. An annotation has ``category_id`` and ``bbox`` with its ``bbox_mode``; ``poly`` (8
numbers, pixels) is more exact than the box; an absent ``difficult`` means 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rsd2.structures import boxes_to_corners


def check_record(record: Mapping[str, Any], *keys: str) -> None:
    """Check that a dataset dict has the keys that its user needs.

    Args:
        record: a dataset dict.
        keys: keys that must be there.

    Raises:
        ValueError: if a key is missing; the message names the record and the first missing key.
    """
    for key in keys:
        if key not in record:
            names = [f"{k} {record[k]!r}" for k in ("file_name", "image_id") if k in record]
            raise ValueError(
                f"the dataset dict of {' and '.join(names) or f'the keys {sorted(record)}'} has no "
                f"{key!r}; the function that the dataset is registered with has to fill it"
            )


def polygon_of(annotation: Mapping[str, Any], image: object) -> np.ndarray:
    """Return the quadrilateral of an annotation, whatever form its box has.

    Args:
        annotation: annotation with ``poly`` (8 numbers), a rotated ``bbox`` (5 numbers), or an
            upright one (4 numbers) that says its ``bbox_mode``.
        image: image to which it belongs, for messages.

    Returns:
        (4, 2) float64 xy in pixels: ``poly``, else the corners of the box.

    Raises:
        ValueError: if the annotation has none of these, or ``poly`` has another length.
    """
    # A polygon says more than the box around it: annotators draw slanted quadrilaterals.
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
    if len(box) == 4:
        # Here and not above, because quadrilaterals are scored without Detectron2, too.
        from detectron2.structures import BoxMode

        if mode in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
            x0, y0, x1, y1 = BoxMode.convert(box, BoxMode(mode), BoxMode.XYXY_ABS)
            return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)

    raise ValueError(
        f"an object of image {image!r} has neither 'poly' (8 numbers) nor a rotated 'bbox' (5 "
        f"numbers) nor an upright one (4 numbers) with its 'bbox_mode': {dict(annotation)}"
    )
