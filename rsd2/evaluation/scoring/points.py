"""DroneCrowd's localisation score: average precision of points by distance.

Source: Wen et al., "Detection, Tracking, and Counting Meets Drones in Crowds", CVPR 2021.

Shapes: D detections, G objects, P pairs, R distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsd2.evaluation.matching.boxes import (
    BoxDetections,
    BoxTruth,
    defer_acceptance,
    rank_detections,
)

from .average_precision import average_precision_by_group

LOCALIZATION_DISTANCES = tuple(range(1, 26))
"""Pixels, over which L-mAP is the mean."""


def score_points(
    truth: BoxTruth,
    detections: BoxDetections,
    distances: Sequence[float] = LOCALIZATION_DISTANCES,
    max_detections: int | None = None,
) -> np.ndarray:
    """Average precision of the centres of boxes at some distances.

    In decreasing score each detection takes the nearest free object of its frame and class with a
    distance <= d. All frames are pooled; the area under the curve is VOC 2010's.

    Args:
        truth: labels of the dataset; objects flagged ``ignore`` do not count.
        detections: detections on its frames.
        distances: R values d, pixels, > 0.
        max_detections: most detections of one class in one frame; None keeps all.

    Returns:
        (R, K) float64 in [0, 1]; ``nan`` for classes without object.

    Raises:
        ValueError: for a distance that is not positive.
    """
    if not len(distances) or min(distances) <= 0:
        raise ValueError(f"distances must be positive, got {distances}")
    ranked = rank_detections(detections, max_detections)
    detection, found, distance = _near_pairs(truth, ranked, max(distances))

    order = np.argsort(-ranked.scores, kind="stable")
    counted = truth.class_index[~truth.ignore]
    num_objects = np.bincount(counted, minlength=len(truth.class_names))
    result = np.full((len(distances), len(num_objects)), np.nan)
    for r, limit in enumerate(distances):
        near = distance <= limit
        match = defer_acceptance(detection[near], found[near], len(ranked.scores), len(truth.boxes))
        is_true, labels = match[order] >= 0, ranked.class_index[order]
        result[r] = average_precision_by_group(is_true, labels, num_objects)
    return result


def _near_pairs(
    truth: BoxTruth, ranked: BoxDetections, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (detection, object, distance) of one frame and class, nearest object first."""
    num_classes = max(len(truth.class_names), 1)
    counted = np.flatnonzero(~truth.ignore)
    truth_keys = (truth.image_index * num_classes + truth.class_index)[counted]
    counted = counted[np.argsort(truth_keys, kind="stable")]
    truth_keys = np.sort(truth_keys)
    keys = ranked.image_index * num_classes + ranked.class_index  # sorted

    centers = (ranked.boxes[:, :2] + ranked.boxes[:, 2:]) / 2
    places = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    none = np.zeros(0, dtype=np.int64)
    parts = [(none, none, np.zeros(0))]
    for key in np.unique(keys):  # one frame at a time: its distances are a small matrix
        rows = np.arange(*np.searchsorted(keys, [key, key + 1]))
        objects = counted[slice(*np.searchsorted(truth_keys, [key, key + 1]))]
        matrix = np.linalg.norm(centers[rows][:, None] - places[objects][None], axis=2)
        near_rows, near_objects = np.nonzero(matrix <= limit)
        values = matrix[near_rows, near_objects]
        best = np.lexsort((values, near_rows))
        parts.append((rows[near_rows[best]], objects[near_objects[best]], values[best]))
    return tuple(np.concatenate(column) for column in zip(*parts))
