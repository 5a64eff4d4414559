"""What evaluation keeps of every model output, and how the outputs of windows become one image.

A window is a part of an image that the model sees alone: a written tile, or one cut while loading.
Boxes are upright ones, x0, y0, x1, y1 in pixels, or rotated ones, cx, cy, w, h in pixels and an
angle in degrees.

Shapes: N detections of one output or image, C columns of a box (4 or 5), M kept detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torchvision.ops import nms

from .matching.boxes import BoxDetections
from .matching.serial_torch import serial_torch
from .merging import merge_tile_detections, shift_to_full_image
from .scoring.dota import finite_rows

WindowKey = tuple[int, ...]
"""(x, y, width, height) of a window in its image, pixels; empty for a whole image."""


@dataclass(frozen=True)
class OutputRecord:
    """Detections of one model input, a window or a whole image, in pixels of the whole image.

    Attributes:
        image_id: id of the whole image.
        window: place of the input in the whole image.
        boxes: (N, C) float64.
        scores: (N,) float64.
        classes: (N,) int64.
        num_not_finite: detections dropped because a number of theirs was NaN or infinite.
        num_below_floor: detections dropped because of the score floor.
    """

    image_id: str
    window: WindowKey
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    num_not_finite: int = 0
    num_below_floor: int = 0

    @property
    def num_predicted(self) -> int:
        """Detections that the model made, the dropped ones too."""
        return len(self.scores) + self.num_not_finite + self.num_below_floor


@dataclass(frozen=True)
class BoxMerging:
    """How the windows of one image are put together, for upright boxes.

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

    columns: ClassVar[int] = 4

    def __post_init__(self) -> None:
        """Check the threshold."""
        if self.nms_threshold is not None and not 0.0 <= self.nms_threshold <= 1.0:
            raise ValueError(f"nms_threshold must be in [0, 1] or None, got {self.nms_threshold}")

    def choose(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Choose the detections that stay when overlapping windows saw the same object.

        Args:
            boxes: (N, C) boxes of all windows of one image, in pixels of the whole image.
            scores: (N,).
            classes: (N,).

        Returns:
            (M,) int64 indices in decreasing score, equal scores by index.
        """
        order = np.argsort(-scores, kind="stable")
        if self.nms_threshold is None:
            return order
        corners = boxes + (0, 0, 1, 1) if self.legacy_pixels else boxes

        # One class after the other: batched_nms moves the classes apart, which costs digits.
        keep = np.zeros(len(boxes), dtype=bool)
        for label in np.unique(classes):
            own = order[classes[order] == label]
            kept = nms(
                torch.from_numpy(corners[own]), torch.from_numpy(scores[own]), self.nms_threshold
            )
            keep[own[kept.numpy()]] = True
        return order[keep[order]]


@dataclass(frozen=True)
class RotatedBoxMerging(BoxMerging):
    """The same for rotated boxes; mmrotate merges at an IoU of 0.1, the DOTA devkit at 0.3."""

    nms_threshold: float | None = 0.1

    columns: ClassVar[int] = 5

    def choose(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Choose the detections that stay, see `BoxMerging.choose`."""
        with serial_torch():
            tensors = (torch.from_numpy(values) for values in (boxes, scores, classes))
            return merge_tile_detections(*tensors, iou_threshold=self.nms_threshold).numpy()


@dataclass(frozen=True)
class AssembledOutputs:
    """All outputs as detections on whole images, and what happened on the way.

    Attributes:
        detections: detections by image, those of an image in decreasing score.
        counts: numbers of outputs, windows, images and detections, by name.
        seen: (image id, window) of every distinct output.
    """

    detections: BoxDetections
    counts: dict[str, int]
    seen: frozenset[tuple[str, WindowKey]]


def window_key(tile: Mapping[str, int] | None) -> WindowKey:
    """Return what tells windows apart.

    Args:
        tile: ``x``, ``y``, ``width`` and ``height`` of a window; None or empty for a whole image.

    Returns:
        These four numbers, or nothing.
    """
    return tuple(int(tile[name]) for name in ("x", "y", "width", "height")) if tile else ()


def make_record(
    image_id: str,
    tile: Mapping[str, int] | None,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    score_floor: float | None = None,
) -> OutputRecord:
    """Shift one output to its whole image and drop what cannot be scored, counting it.

    Args:
        image_id: id of the whole image.
        tile: ``x, y, width, height`` of the window, or None for a whole image.
        boxes: (N, C) in pixels of the input, any device.
        scores: (N,).
        classes: (N,) integers.
        score_floor: detections with a smaller score are dropped; None keeps all.

    Returns:
        The record, in numpy on the CPU, ready to be sent to another process.
    """
    window = window_key(tile)
    moved = shift_to_full_image(boxes.detach().cpu(), *(window[:2] or (0, 0))).numpy()
    values = scores.detach().cpu().to(torch.float64).numpy()
    labels = classes.detach().cpu().to(torch.int64).numpy()

    # Finite or not is asked first: the comparison of NaN with the floor is false.
    finite = finite_rows(values, moved)
    keep = finite if score_floor is None else finite & (values >= score_floor)
    return OutputRecord(
        image_id=image_id,
        window=window,
        boxes=moved[keep],
        scores=values[keep],
        classes=labels[keep],
        num_not_finite=int((~finite).sum()),
        num_below_floor=int((finite & ~keep).sum()),
    )


def assemble_outputs(
    records: Iterable[OutputRecord],
    image_index: Mapping[str, int],
    merging: BoxMerging,
    max_detections: int | None = None,
) -> AssembledOutputs:
    """Merge the windows of every image; the result does not depend on the order of the records.

    An input seen twice (by two processes, or listed twice) counts once. Images that came whole stay
    as the model gave them.

    Args:
        records: records of all processes.
        image_index: number of each image id in the ground truth.
        merging: rule by which windows are merged.
        max_detections: number of the best-scored detections kept of every image; None keeps all.

    Returns:
        Detections in the order of the images; within one in decreasing score, equal scores by
        place of the window and order of the output.
    """
    distinct: dict[tuple[str, WindowKey], OutputRecord] = {}
    num_records = 0
    for record in records:
        num_records += 1
        distinct.setdefault((record.image_id, record.window), record)
    by_image: dict[str, list[OutputRecord]] = {}
    for _, record in sorted(distinct.items()):
        by_image.setdefault(record.image_id, []).append(record)

    none = np.zeros(0, dtype=np.int64)
    parts = [(none, none, np.zeros(0), np.zeros((0, merging.columns)))]
    num_merged = 0
    for image_id in sorted(by_image, key=image_index.__getitem__):
        own = by_image[image_id]
        columns = ([r.boxes for r in own], [r.scores for r in own], [r.classes for r in own])
        boxes, scores, classes = map(np.concatenate, columns)
        came_in_windows = any(record.window for record in own)
        num_merged += came_in_windows
        if came_in_windows:
            keep = merging.choose(boxes, scores, classes)
        else:
            keep = np.argsort(-scores, kind="stable")
        keep = keep[:max_detections]
        index = np.full(len(keep), image_index[image_id], dtype=np.int64)
        parts.append((index, classes[keep], scores[keep], boxes[keep]))

    detections = BoxDetections(*map(np.concatenate, zip(*parts)))
    kept = distinct.values()
    counts = {
        "images_predicted": len(by_image),
        "images_merged_from_windows": num_merged,
        "windows_predicted": sum(bool(record.window) for record in kept),
        "outputs_seen_more_than_once": num_records - len(distinct),
        "detections_predicted": sum(record.num_predicted for record in kept),
        "detections_dropped_not_finite": sum(record.num_not_finite for record in kept),
        "detections_dropped_below_score_floor": sum(record.num_below_floor for record in kept),
        "detections_scored": len(detections.scores),
    }
    return AssembledOutputs(detections, counts, frozenset(distinct))
