"""Filters of pseudo-boxes, all of them off by default: the official code has none.

Shapes: N boxes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from rsd2.ops import nms_rotated


@dataclass(frozen=True)
class BoxFilters:
    """Which boxes to keep; None switches a filter off.

    Attributes:
        min_side: least shorter side, pixels.
        min_area: least area of the box, square pixels.
        max_area_fraction: largest share of the image, in (0, 1].
        max_aspect: largest ratio of longer to shorter side, >= 1.
        min_score: least score given by the source.
        duplicate_iou: among boxes with a rotated IoU above this, in [0, 1], only the best stays.
        max_density: most boxes per 100 x 100 pixels of image, the best ones; at least one box
            is allowed.
        top_k: most boxes per image, the best ones.
    """

    min_side: float | None = None
    min_area: float | None = None
    max_area_fraction: float | None = None
    max_aspect: float | None = None
    min_score: float | None = None
    duplicate_iou: float | None = None
    max_density: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "min_side": (0, math.inf),
            "min_area": (0, math.inf),
            "max_area_fraction": (0, 1),
            "max_aspect": (1, math.inf),
            "duplicate_iou": (0, 1),
            "max_density": (0, math.inf),
            "top_k": (1, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, got {value}")

    def select(
        self, boxes: np.ndarray, scores: np.ndarray, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, Counter[str]]:
        """Choose boxes.

        Args:
            boxes: (N, 5) float32 canonical boxes, pixels and degrees.
            scores: (N,) float32.
            image_size: (H, W), pixels.

        Returns:
            (indices of the boxes to keep, best score first, equal scores by index; how many each
            filter removed, by its name).
        """

        pixels = image_size[0] * image_size[1]
        # Best first from here on, so that every later cut keeps the best boxes.
        order = np.argsort(-scores, kind="stable")
        removed: Counter[str] = Counter()
        # Canonical boxes have width >= height, so height is the shorter side.
        width, height = boxes[:, 2].astype(np.float64), boxes[:, 3].astype(np.float64)
        tests = {
            "min_side": (self.min_side, height, 1),
            "min_area": (self.min_area, width * height, 1),
            "max_area_fraction": (self.max_area_fraction, width * height / pixels, -1),
            "max_aspect": (self.max_aspect, width / height, -1),
            "min_score": (self.min_score, scores, 1),
        }

        for name, (limit, values, sign) in tests.items():
            if limit is not None:
                kept = order[sign * values[order] >= sign * limit]
                removed[name], order = len(order) - len(kept), kept

        # After the cheap tests, because the cost grows with the square of the number of boxes.
        if self.duplicate_iou is not None:
            chosen = torch.from_numpy(order)
            kept = nms_rotated(
                torch.from_numpy(boxes)[chosen],
                torch.from_numpy(scores)[chosen],
                self.duplicate_iou,
            )
            removed["duplicate_iou"] = len(order) - len(kept)
            order = order[kept.numpy()]

        numbers = {
            "max_density": None
            if self.max_density is None
            else max(1, round(self.max_density * pixels / 100**2)),
            "top_k": self.top_k,
        }
        for name, number in numbers.items():
            if number is not None:
                removed[name], order = max(0, len(order) - number), order[:number]

        return order, +removed


FELZENSZWALB_FILTERS = BoxFilters(
    min_side=3.0, max_area_fraction=0.4, duplicate_iou=0.8, max_density=20.0
)
"""For proposals of several scales, which repeat each other without end."""
