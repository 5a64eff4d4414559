"""How unsure a detector is of its detections, for choosing the images to label next.

All measures need only what every detector reports: boxes, classes and scores. A score of
Deformable DETR is the sigmoid of one class, and each class is a question of its own; one of
Faster R-CNN is a share of a softmax over the classes and the background. A score therefore always
answers "this class, or not?", and the measures treat it as the probability of yes.

Shapes: N detections of one image, M of another detector in the same image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from rsd2.ops import sparse_iou_rotated

from .sliding_window import ImageDetections

SAME_PLACE = 0.5
"""Rotated IoU above which two boxes are taken to show one object."""

SUMMARIES: dict[str, Callable[[np.ndarray], float]] = {
    "sum": lambda values: float(values.sum()),
    "mean": lambda values: float(values.mean()) if len(values) else 0.0,
    "max": lambda values: float(values.max(initial=0.0)),
}
"""Rules by which the values of an image's detections become one; 0 without any detection."""


def score_entropy(scores: np.ndarray) -> np.ndarray:
    """Return the entropy of each score s as a probability: -s log2 s - (1 - s) log2 (1 - s).

    Args:
        scores: (N,) in [0, 1].

    Returns:
        (N,) float64 bits in [0, 1]; 1 where the score is 0.5.
    """
    # At 0 and 1 the limit is 0, which the logarithm alone does not give.
    yes = np.clip(np.asarray(scores, dtype=np.float64), 1e-12, 1 - 1e-12)
    return -(yes * np.log2(yes) + (1 - yes) * np.log2(1 - yes))


def score_closeness(found: ImageDetections) -> np.ndarray:
    """Return 1 minus the margin by which each detection won.

    The margin is the smaller of two distances: from the score s to its opposite, abs(2 s - 1), and
    from s to the best score of another class at the same place, where one was reported. The loser
    of such a pair is as close as its winner.

    Args:
        found: N detections of one image.

    Returns:
        (N,) float64 in [0, 1]; 1 where the decision was open.
    """
    margin = np.abs(2 * found.scores - 1)
    rivals = _overlap(found, found) > 0
    rivals &= found.classes[:, None] != found.classes[None]

    gaps = np.abs(found.scores[:, None] - found.scores[None])
    # Infinity stands for "no rival", so that the first distance decides.
    gaps[~rivals] = np.inf
    return 1 - np.minimum(margin, gaps.min(axis=1, initial=np.inf))


def disagreement(one: ImageDetections, other: ImageDetections) -> np.ndarray:
    """Compare the detections of two detectors, like the raw and the averaged weights of a training.

    Detections of one class are paired one to one so that the sum of their IoU is greatest. A pair
    of IoU above 0.5 counts max(s, t) - IoU * min(s, t), with the two scores s and t: 0 where both
    are alike. Whatever is left alone counts its score.

    Args:
        one: N detections of the first detector.
        other: M detections of the second detector in the same image.

    Returns:
        (N + M - pairs,) float64 in [0, 1]: pairs first, then those left alone.
    """
    # Pairs below the limit must not take the place of others that are above it.
    overlap = _overlap(one, other)
    overlap[one.classes[:, None] != other.classes[None]] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    is_pair = overlap[rows, columns] > 0
    rows, columns = rows[is_pair], columns[is_pair]

    first, second = one.scores[rows], other.scores[columns]
    pairs = np.maximum(first, second) - overlap[rows, columns] * np.minimum(first, second)
    alone = np.delete(one.scores, rows), np.delete(other.scores, columns)
    return np.concatenate([pairs, *alone])


def _overlap(one: ImageDetections, other: ImageDetections) -> np.ndarray:
    """Return the (N, M) float64 rotated IoU of the boxes, 0 where it is not above `SAME_PLACE`."""
    first, second = (torch.from_numpy(detections.boxes) for detections in (one, other))
    rows, columns, iou = sparse_iou_rotated(first, second, SAME_PLACE)
    overlap = np.zeros((len(one.scores), len(other.scores)))
    overlap[rows, columns] = iou
    return overlap
