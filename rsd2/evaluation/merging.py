"""Bring detections of windows back to their whole image.

Shapes: N detections of one whole image, M of them kept.
"""

from __future__ import annotations

import torch

from rsd2.ops import batched_nms_rotated


def shift_to_full_image(boxes: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Move boxes of a window to the coordinates of the whole image.

    Args:
        boxes: (N, 5) rotated boxes (cx, cy, w, h, angle in degrees) or (N, 4) upright ones
            (x0, y0, x1, y1), in pixels of the window.
        x: left edge of the window in the whole image, pixels.
        y: upper edge of the window, pixels.

    Returns:
        float64 boxes in pixels of the whole image, on the device of ``boxes``; sides and angles
        unchanged. Double precision, because a float32 resolves only 1/500 px at 20,000 px.

    Raises:
        ValueError: if ``boxes`` has neither 5 nor 4 columns.
    """
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes must be (N, 5) or (N, 4), got {tuple(boxes.shape)}")
    offsets = [x, y, 0, 0, 0] if boxes.shape[1] == 5 else [x, y, x, y]
    shift = torch.tensor(offsets, dtype=torch.float64, device=boxes.device)
    return boxes.to(torch.float64) + shift


def merge_tile_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    iou_threshold: float | None = 0.1,
) -> torch.Tensor:
    """Choose the detections that stay when overlapping windows saw the same object.

    Rotated non-maximum suppression within each class. mmrotate merges at 0.1, the DOTA devkit at
    0.3: state the value beside every score.

    Args:
        boxes: (N, 5) rotated boxes of all windows of one image, in pixels of the whole image.
        scores: (N,).
        classes: (N,) integers.
        iou_threshold: in [0, 1]; a box is dropped at an IoU strictly above it with a kept box of
            its class. ``None`` keeps every box.

    Returns:
        (M,) int64 indices of the kept detections in decreasing score, equal scores by index.

    Raises:
        ValueError: if the shapes disagree or the threshold is outside its range.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 5 or not (len(boxes) == len(scores) == len(classes)):
        raise ValueError(
            "boxes, scores and classes must be (N, 5), (N,) and (N,), got "
            f"{tuple(boxes.shape)}, {tuple(scores.shape)} and {tuple(classes.shape)}"
        )
    if iou_threshold is None:
        return torch.argsort(scores, descending=True, stable=True)
    if not 0.0 <= iou_threshold <= 1.0:
        raise ValueError(f"iou_threshold must lie in [0, 1] or be None, got {iou_threshold}")
    return batched_nms_rotated(boxes, scores, classes, iou_threshold)
