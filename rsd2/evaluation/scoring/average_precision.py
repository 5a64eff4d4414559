"""Average precision of one class from its ranked detections, in plain numpy.

Shapes: D detections of the class, in decreasing score.
"""

from __future__ import annotations

import numpy as np

AP_METHODS = ("voc07", "area")

# The doubles i * 0.1, as the DOTA devkit and Detectron2 make them: three of them (0.3, 0.6, 0.7)
# lie one rounding above the decimal, so a recall of exactly 3/10 does not reach the point 0.3.
VOC07_RECALL_POINTS = np.arange(11) * 0.1


def precision_recall(
    is_true: np.ndarray, is_false: np.ndarray, num_positives: int
) -> tuple[np.ndarray, np.ndarray]:
    """Accumulate precision and recall down the ranking.

    A detection that is neither true nor false is ignored: it moves neither curve.

    Args:
        is_true: (D,) bool, true positives.
        is_false: (D,) bool, false positives; never true together with ``is_true``.
        num_positives: ground-truth objects that count, >= 0.

    Returns:
        precision (D,) and recall (D,), float64 in [0, 1]; precision is 0 before the first
        detection that counts, and recall is ``nan`` when ``num_positives`` is 0.

    Raises:
        ValueError: if the two masks differ in shape.
    """
    is_true, is_false = np.asarray(is_true, bool), np.asarray(is_false, bool)
    if is_true.shape != is_false.shape or is_true.ndim != 1:
        raise ValueError(
            f"is_true and is_false must be 1-d of one length, got {is_true.shape} and "
            f"{is_false.shape}"
        )
    true_so_far = np.cumsum(is_true, dtype=np.int64)
    counted_so_far = np.cumsum(is_true | is_false, dtype=np.int64)
    precision = true_so_far / np.maximum(counted_so_far, 1)
    if num_positives == 0:
        return precision, np.full(len(is_true), np.nan)
    return precision, true_so_far / num_positives


def average_precision(precision: np.ndarray, recall: np.ndarray, method: str = "voc07") -> float:
    """Area under the precision-recall curve by one of PASCAL VOC's two rules.

    ``voc07``: mean over the recalls 0, 0.1, ..., 1 of the greatest precision at that recall or
    beyond (0 where the recall is not reached); DOTA's rule. ``area``: exact area under the curve
    after precision has been made non-increasing in recall (VOC 2010 and later).

    Args:
        precision: (D,) of the curve of :func:`precision_recall`; may be empty.
        recall: (D,) non-decreasing, of :func:`precision_recall`.
        method: ``"voc07"`` or ``"area"``.

    Returns:
        Average precision in [0, 1]; 0 without detections, ``nan`` if any recall is ``nan``.

    Raises:
        ValueError: for another ``method``.
    """
    check_ap_method(method)
    precision, recall = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    if precision.size == 0:
        return 0.0
    if np.isnan(recall).any():
        return float("nan")
    if method == "voc07":
        reached = best_precision_at(precision, recall, VOC07_RECALL_POINTS)
        return float(reached.sum() / len(VOC07_RECALL_POINTS))
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((steps * best_from_here).sum())


def average_precision_by_group(
    is_true: np.ndarray, groups: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """Exact area under the curve of each group of detections, such as those of a class.

    Args:
        is_true: (D,) bool, true positives among detections in decreasing score; others are false.
        groups: (D,) int64, group of each detection.
        num_objects: (N,) int64, objects that count of each group.

    Returns:
        (N,) float64 in [0, 1]; ``nan`` for groups without objects.
    """
    result = np.full(len(num_objects), np.nan)
    for group in np.flatnonzero(num_objects):
        own = is_true[groups == group]
        curve = precision_recall(own, ~own, int(num_objects[group]))
        result[group] = average_precision(*curve, method="area")
    return result


def best_precision_at(precision: np.ndarray, recall: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Greatest precision at some recalls or beyond, as PASCAL VOC 2007 and COCO average it.

    Args:
        precision: (D,) of the curve of :func:`precision_recall`; may be empty.
        recall: (D,) non-decreasing, without ``nan``.
        points: (R,) recalls in [0, 1].

    Returns:
        (R,) float64; 0 where the recall is not reached.
    """
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(best_from_here, 0.0)[np.searchsorted(recall, points, side="left")]


def check_ap_method(method: str) -> None:
    """Check that a name is one of ``AP_METHODS``.

    Args:
        method: the name to check.

    Raises:
        ValueError: naming the two methods.
    """
    if method not in AP_METHODS:
        raise ValueError(f"unknown AP method {method!r}; choose one of {', '.join(AP_METHODS)}")
