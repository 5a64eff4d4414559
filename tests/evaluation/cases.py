"""Small data of the evaluation tests: labels and detections as arrays, and what a model returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rsd2.evaluation import BoxDetections, BoxTruth


def upright_case(
    objects: Sequence[dict], detections: Sequence[tuple], num_images: int = 1, num_classes: int = 1
) -> tuple[BoxTruth, BoxDetections]:
    """Objects: box XYXY, and image, label, area, ignore, uncertain where they matter.

    Detections are (image, label, score, box).
    """

    def column(name: str, default: Any, dtype: type) -> np.ndarray:
        return np.array([item.get(name, default) for item in objects], dtype=dtype)

    boxes = column("box", None, np.float64).reshape(-1, 4)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    given = column("area", np.nan, np.float64)
    truth = BoxTruth(
        tuple(f"i{k}" for k in range(num_images)),
        tuple(f"c{k}" for k in range(num_classes)),
        column("image", 0, np.int64),
        column("label", 0, np.int64),
        boxes,
        np.where(np.isnan(given), areas, given),
        column("ignore", False, bool),
        column("uncertain", False, bool),
    )
    images, labels, scores, found = zip(*detections) if detections else [()] * 4
    return truth, BoxDetections(
        np.array(images, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(found, dtype=np.float64).reshape(-1, 4),
    )


def model_output(boxes: Any, scores: Any, classes: Any, size: tuple[int, int], columns: int = 4):
    """What Detectron2's models return of an image of ``size`` (height, width)."""
    from detectron2.structures import Boxes, Instances, RotatedBoxes

    instances = Instances(size)
    table = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, columns)
    instances.pred_boxes = (RotatedBoxes if columns == 5 else Boxes)(table)
    instances.scores = torch.as_tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.as_tensor(classes, dtype=torch.int64)
    return {"instances": instances}
