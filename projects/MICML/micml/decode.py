"""Decode the maps of centre heads into boxes.

Shapes: B frames, K classes, N detections of a frame, H, W height and width of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

Detections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def decode(
    outputs: Mapping[str, torch.Tensor],
    *,
    top_k: int = 100,
    score_floor: float = 0.0,
    soft_nms: bool = True,
) -> list[Detections]:
    """Find the peaks of the heat maps and their boxes.

    Source: CenterNet (arXiv 1904.07850), section 4.1. A pixel is a peak if none of its eight
    neighbours is higher. A negative width or height counts as 0.

    Args:
        outputs: ``hm`` (B, K, H, W) logits, ``wh`` (B, 2, H, W) and ``reg`` (B, 2, H, W), pixels.
        top_k: number of peaks to keep per frame, all classes together; >= 1.
        score_floor: peaks must score more than this; in [0, 1).
        soft_nms: lower the scores of boxes that overlap better ones of their class, see
            `soften_scores`.

    Returns:
        For each frame: boxes (N, 4) XYXY in pixels, not cut at the frame, scores (N,) in [0, 1],
        descending, and classes (N,) int64.

    Raises:
        ValueError: see `check_decoding`.
    """
    check_decoding(top_k, score_floor)
    scores = outputs["hm"].sigmoid()
    height, width = scores.shape[2:]
    # A 3x3 maximum is the non-maximum suppression of centre heads; equal neighbours both stay.
    is_peak = F.max_pool2d(scores, 3, stride=1, padding=1) == scores
    best, places = (scores * is_peak).flatten(1).topk(min(top_k, scores[0].numel()))
    # The top k runs over all classes together: a place is class, row and column in one number.
    classes = places // (height * width)
    pixels = places % (height * width)

    found = []
    for index in range(len(scores)):
        keep = best[index] > score_floor  # pixels that are no peak have a score of 0
        place = pixels[index][keep]
        offset = outputs["reg"][index].flatten(1)[:, place].T
        half = outputs["wh"][index].flatten(1)[:, place].T.clamp(min=0) / 2
        center = torch.stack([place % width, place // width], dim=1) + offset
        boxes = torch.cat([center - half, center + half], dim=1)
        detections = boxes, best[index][keep], classes[index][keep]
        if soft_nms:
            detections = _soften(detections)
        found.append(detections)

    return found


def check_decoding(top_k: int, score_floor: float) -> None:
    """Validate arguments of `decode`.

    Args:
        top_k: see `decode`.
        score_floor: see `decode`.

    Raises:
        ValueError: ``top_k`` is less than 1, or ``score_floor`` outside [0, 1).
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if not 0 <= score_floor < 1:
        raise ValueError(f"score_floor must be in [0, 1), got {score_floor}")


def soften_scores(
    boxes: np.ndarray, scores: np.ndarray, *, sigma: float = 0.5, floor: float = 0.001
) -> tuple[np.ndarray, np.ndarray]:
    """Lower the score of each box by its overlap with better ones.

    Source: Soft-NMS (arXiv 1704.04503), equation 3: the best box is taken, the scores of the
    remaining are multiplied by exp(-IoU^2 / sigma), and so on. The IoU takes a pixel as 1 wide,
    so a box from x1 to x2 is x2 - x1 + 1 wide, as in the official program of MICML.

    Args:
        boxes: (N, 4) XYXY, pixels.
        scores: (N,) in [0, 1].
        sigma: width of the decay, > 0; smaller values suppress more.
        floor: boxes whose score is lowered to less are dropped.

    Returns:
        Indices (M,) of the boxes that stay, best first, and their new scores (M,) float64.
    """
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    remaining = np.arange(len(boxes))
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    order, softened = [], []

    while len(remaining):
        place = int(scores[remaining].argmax())
        best = remaining[place]
        order.append(best)
        softened.append(scores[best])

        remaining = np.delete(remaining, place)
        low = np.maximum(boxes[best, :2], boxes[remaining, :2])
        high = np.minimum(boxes[best, 2:], boxes[remaining, 2:])
        shared = np.maximum(high - low + 1, 0).prod(axis=1)
        overlap = shared / (areas[best] + areas[remaining] - shared)
        scores[remaining] *= np.exp(-(overlap**2) / sigma)
        # A box that overlaps nothing stays even below the floor: its score was not lowered.
        remaining = remaining[(overlap == 0) | (scores[remaining] >= floor)]

    return np.array(order, dtype=np.int64), np.array(softened, dtype=np.float64)


def _soften(detections: Detections) -> Detections:
    """Apply `soften_scores` to every class; on the CPU, because it is a sequence of tiny steps."""
    boxes, scores, classes = detections
    labels = classes.cpu().numpy()
    host_boxes, host_scores = boxes.detach().cpu().numpy(), scores.detach().cpu().numpy()
    # Start with empty arrays, so that a frame without detections concatenates too.
    kept, softened = [np.zeros(0, np.int64)], [np.zeros(0)]
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        order, new = soften_scores(host_boxes[own], host_scores[own])
        kept.append(own[order])
        softened.append(new)

    indices, values = np.concatenate(kept), np.concatenate(softened)
    # Stable, so that equal scores keep the order of their classes on every machine.
    order = np.argsort(-values, kind="stable")
    chosen = torch.from_numpy(indices[order]).to(boxes.device)
    new_scores = torch.from_numpy(values[order]).to(scores.device, scores.dtype)
    return boxes[chosen], new_scores, classes[chosen]
