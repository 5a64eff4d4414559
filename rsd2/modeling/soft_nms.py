"""Soft-NMS of upright boxes: those that overlap better ones stay, with lower scores.

Shapes: N detections of an image, M that stay.
"""

from __future__ import annotations

import numpy as np
import torch

BoxesScoresClasses = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


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


def soften_detections(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor
) -> BoxesScoresClasses:
    """Apply `soften_scores` to every class; on the CPU, because it is a sequence of tiny steps.

    Args:
        boxes: (N, 4) XYXY, pixels.
        scores: (N,) in [0, 1].
        classes: (N,) int64.

    Returns:
        The boxes that stay, their new scores, descending, and their classes.
    """
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
