"""What evaluation of upright boxes keeps of every output, and how windows become one image.

Shapes: N detections of one output. Boxes are x0, y0, x1, y1 pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms

from .matching.boxes import BoxDetections
from .scoring.dota import finite_rows


@dataclass(frozen=True)
class BoxRecord:
    """Detections of one model input, a window or a whole image, in pixels of the whole image.

    Attributes:
        image_id: of the whole image.
        tile: (x, y, width, height) in the whole image; empty for a whole image.
        boxes: (N, 4) float64.
        scores: (N,) float64.
        classes: (N,) int64.
        num_non_finite: detections dropped because a number of theirs was NaN or infinite.
        num_below_floor: detections dropped because of the score floor.
    """

    image_id: str
    tile: tuple[int, ...]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    num_non_finite: int = 0
    num_below_floor: int = 0


@dataclass(frozen=True)
class BoxMerging:
    """How the windows of one image are put together.

    Attributes:
        nms_threshold: IoU in [0, 1] above which the detections of one class are duplicates; 0.5 in
            TinyBenchmark. None keeps all. Images that came whole are left as they are.
        legacy_pixels: count sides as one pixel longer, as TinyBenchmark's own suppression does;
            for boxes of 4 px that is another IoU.
        score_floor: detections with a smaller score are dropped first (0.05 in the merging of
            the bottom-heavy repository, which drops 0.05 itself too); None keeps all.
    """

    nms_threshold: float | None = 0.5
    legacy_pixels: bool = False
    score_floor: float | None = None

    def __post_init__(self) -> None:
        """Refuse an impossible threshold."""
        if self.nms_threshold is not None and not 0.0 <= self.nms_threshold <= 1.0:
            raise ValueError(f"nms_threshold must be in [0, 1] or None, got {self.nms_threshold}")


def make_box_record(
    image_id: str,
    tile: Mapping[str, int] | None,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    score_floor: float | None = None,
) -> BoxRecord:
    """Shift one output to its whole image and drop what cannot be scored, counting it.

    Args:
        image_id: of the whole image.
        tile: ``x, y, width, height`` of the window, or None for a whole image.
        boxes: (N, 4) in pixels of the input, any device.
        scores: (N,).
        classes: (N,) integers.
        score_floor: detections with a smaller score are dropped; None keeps all.

    Returns:
        The record, in numpy, ready to be sent to another process.
    """
    key = tuple(int(tile[name]) for name in ("x", "y", "width", "height")) if tile else ()
    moved = boxes.detach().cpu().to(torch.float64).numpy() + np.tile(key[:2] or (0, 0), 2)
    values = scores.detach().cpu().to(torch.float64).numpy()
    labels = classes.detach().cpu().to(torch.int64).numpy()
    finite = finite_rows(values, moved)
    keep = finite if score_floor is None else finite & (values >= score_floor)
    return BoxRecord(
        image_id=image_id,
        tile=key,
        boxes=moved[keep],
        scores=values[keep],
        classes=labels[keep],
        num_non_finite=int((~finite).sum()),
        num_below_floor=int((finite & ~keep).sum()),
    )


def merge_windows(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, merging: BoxMerging
) -> np.ndarray:
    """Choose the detections that stay when overlapping windows saw the same object.

    Args:
        boxes: (N, 4) of all windows of one image, in pixels of the whole image.
        scores: (N,).
        classes: (N,).
        merging: the rule.

    Returns:
        int64 indices in decreasing score, equal scores by index.
    """
    order = np.argsort(-scores, kind="stable")
    if merging.nms_threshold is None:
        return order
    corners = boxes + (0, 0, 1, 1) if merging.legacy_pixels else boxes
    keep = np.zeros(len(boxes), dtype=bool)
    for label in np.unique(classes):
        own = order[classes[order] == label]
        kept = nms(
            torch.from_numpy(corners[own]), torch.from_numpy(scores[own]), merging.nms_threshold
        )
        keep[own[kept.numpy()]] = True
    return order[keep[order]]


def assemble_boxes(
    records: Iterable[BoxRecord], image_index: Mapping[str, int], merging: BoxMerging
) -> tuple[BoxDetections, dict[str, int]]:
    """Merge the windows of every image; the result does not depend on the order of the records.

    An input seen twice (by two processes, or listed twice) counts once.

    Args:
        records: of all processes.
        image_index: number of each image id in the ground truth.
        merging: of the windows.

    Returns:
        (detections in the order of the images, counts of outputs and detections by name).
    """
    distinct: dict[tuple[str, tuple[int, ...]], BoxRecord] = {}
    num_repeated = 0
    for record in records:
        num_repeated += (record.image_id, record.tile) in distinct
        distinct.setdefault((record.image_id, record.tile), record)
    by_image: dict[str, list[BoxRecord]] = {}
    for _, record in sorted(distinct.items()):
        by_image.setdefault(record.image_id, []).append(record)
    none = np.zeros(0, dtype=np.int64)
    parts = [(none, none, np.zeros(0), np.zeros((0, 4)))]
    for image_id in sorted(by_image, key=image_index.__getitem__):
        own = by_image[image_id]
        boxes = np.concatenate([record.boxes for record in own])
        scores = np.concatenate([record.scores for record in own])
        classes = np.concatenate([record.classes for record in own])
        keep = np.arange(len(scores))
        if any(record.tile for record in own):
            keep = merge_windows(boxes, scores, classes, merging)
        index = np.full(len(keep), image_index[image_id], dtype=np.int64)
        parts.append((index, classes[keep], scores[keep], boxes[keep]))
    detections = BoxDetections(*(np.concatenate(column) for column in zip(*parts)))
    kept = distinct.values()
    return detections, {
        "images_predicted": len(by_image),
        "images_merged_from_windows": sum(any(r.tile for r in own) for own in by_image.values()),
        "windows_predicted": sum(bool(record.tile) for record in kept),
        "outputs_seen_more_than_once": num_repeated,
        "detections_predicted": sum(
            len(r.scores) + r.num_non_finite + r.num_below_floor for r in kept
        ),
        "detections_dropped_not_finite": sum(record.num_non_finite for record in kept),
        "detections_dropped_below_score_floor": sum(record.num_below_floor for record in kept),
        "detections_scored": len(detections.scores),
    }
