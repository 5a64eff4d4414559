"""TinyPerson's average precision and log-average miss rate on matched boxes.

Source: TinyBenchmark's program; Yu et al., "Scale Match for Tiny Person Detection", WACV 2020. The
size of an object is the square root of its annotated area.

Shapes: K classes, T thresholds, A size ranges, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rsd2.evaluation.matching.boxes import (
    BoxDetections,
    BoxTruth,
    Matching,
    OverlapPairs,
    find_overlaps,
    match_greedily,
    rank_detections,
)

from .average_precision import best_precision_at, precision_recall

TINY_IOU_THRESHOLDS = (0.25, 0.5, 0.75)
TINY_SIZE_RANGES = {
    "all": (1.0, 1e5),
    "tiny": (1.0, 20.0),
    "tiny1": (1.0, 8.0),
    "tiny2": (8.0, 12.0),
    "tiny3": (12.0, 20.0),
    "small": (20.0, 32.0),
    "reasonable": (32.0, 1e5),
}
"""Name -> (least, greatest) size in pixels, both ends included: 8 px are tiny1 and tiny2."""
MISS_RATE_SIZE_RANGES = {
    "all": (2.0, 1e5),
    "tiny": (2.0, 20.0),
    "tiny1": (2.0, 8.0),
    "tiny2": (8.0, 12.0),
    "tiny3": (12.0, 20.0),
    "small": (20.0, 32.0),
}

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_FALSE_PER_IMAGE = np.logspace(-2, 0, 9)
_SIZE_TOLERANCE = 1.25
_REGION_THRESHOLD = 0.5
_LEAST_MISS = 1e-10
_ANY_SHARE = 1e-12


@dataclass(frozen=True)
class TinyProtocol:
    """What is counted.

    Attributes:
        iou_thresholds: T values in (0, 1], reported one by one and never averaged.
        size_ranges: name -> (least, greatest) size in pixels; None means TINY_SIZE_RANGES.
        max_detections: most detections of one class in one image; 200 in TinyBenchmark,
            1000 in newer reports. Numbers of different values are not comparable.
        ignore_uncertain: uncertain objects are ignored.
        use_iod: a detection that found nothing is ignored if an ignored object covers at least
            the IoU threshold of the detection's own area; without, ignored objects are matched by
            IoU, one detection each.
        miss_rate_max_detections: the same for the miss rate.
        miss_rate_quirks: count as the released script does: a ranking that starts beyond a point
            of false positives per image takes its last recall there instead of 0, and the IoD with
            ignored objects is converted once more as if it were an IoU.
    """

    iou_thresholds: tuple[float, ...] = TINY_IOU_THRESHOLDS
    size_ranges: Mapping[str, tuple[float, float]] | None = None
    max_detections: int = 200
    ignore_uncertain: bool = True
    use_iod: bool = True
    miss_rate_max_detections: int = 1000
    miss_rate_quirks: bool = False

    def __post_init__(self) -> None:
        """Validate the protocol."""
        thresholds = tuple(float(value) for value in self.iou_thresholds)
        if not thresholds or not all(0 < value <= 1 for value in thresholds):
            raise ValueError(f"iou_thresholds must lie in (0, 1], got {self.iou_thresholds}")
        object.__setattr__(self, "iou_thresholds", thresholds)
        ranges = dict(TINY_SIZE_RANGES if self.size_ranges is None else self.size_ranges)
        for name, (low, high) in ranges.items():
            if not 0 <= low < high:
                raise ValueError(
                    f"size range {name!r} must have 0 <= low < high, got {low}, {high}"
                )
        object.__setattr__(self, "size_ranges", ranges)
        if self.max_detections < 1 or self.miss_rate_max_detections < 1:
            raise ValueError(
                f"max_detections must be positive, got {self.max_detections} and "
                f"{self.miss_rate_max_detections}"
            )


@dataclass(frozen=True)
class TinyScores:
    """Scores in [0, 1]; ``nan`` for a class without object in a range.

    Attributes:
        precision: (T, A, K) average precision.
        recall: (T, A, K) greatest recall.
        num_counted: (A, K) objects that count.
    """

    precision: np.ndarray
    recall: np.ndarray
    num_counted: np.ndarray


def score_tiny(truth: BoxTruth, detections: BoxDetections, protocol: TinyProtocol) -> TinyScores:
    """Average precision by TinyPerson's rules.

    An object is ignored if it is flagged so or lies outside the size range; a detection that found
    nothing is ignored by IoD, or if its own size lies outside the range.

    Args:
        truth: labels of whole images.
        detections: detections on them, merged.
        protocol: what is counted.

    Returns:
        The scores.
    """
    ranked = rank_detections(detections, protocol.max_detections)
    pairs = find_overlaps(truth, ranked, min(protocol.iou_thresholds))
    ranges, num_classes = protocol.size_ranges, len(truth.class_names)
    shape = (len(protocol.iou_thresholds), len(ranges), num_classes)
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    counted = np.zeros(shape[1:], dtype=np.int64)

    by_class = _rank_by_class(ranked, num_classes)
    for a, limits in enumerate(ranges.values()):
        ignored = _ignored_objects(truth, limits, protocol.ignore_uncertain)
        counted[a] = np.bincount(truth.class_index[~ignored], minlength=num_classes)
        outside = ~_within(ranked.areas(), limits)
        for t, threshold in enumerate(protocol.iou_thresholds):
            iod = threshold if protocol.use_iod else None
            matching = match_greedily(pairs, len(ranked.scores), ignored, threshold, iod)
            for k in np.flatnonzero(counted[a]):
                rows = by_class[k]
                is_true, is_false = _true_and_false(matching, outside, rows)
                curve, reached = precision_recall(is_true, is_false, int(counted[a, k]))
                precision[t, a, k] = best_precision_at(curve, reached, _RECALL_POINTS).mean()
                recall[t, a, k] = reached[-1] if len(reached) else 0.0
    return TinyScores(precision, recall, counted)


def score_miss_rate(
    truth: BoxTruth, detections: BoxDetections, protocol: TinyProtocol
) -> np.ndarray:
    """Log-average miss rate.

    Detections a quarter smaller or larger than the range are left out. The miss rate is averaged
    in the logarithm over nine numbers of false positives per image between 0.01 and 1; where the
    ranking starts beyond such a number nothing is found, unless the protocol asks for the quirks.

    Args:
        truth: labels of whole images, at least one.
        detections: detections on them, merged.
        protocol: what is counted.

    Returns:
        (T, len(MISS_RATE_SIZE_RANGES), K) in [0, 1], smaller is better; ``nan`` for a class without
        object in a range.
    """
    ranked = rank_detections(detections, protocol.miss_rate_max_detections)
    num_classes = len(truth.class_names)
    shape = (len(protocol.iou_thresholds), len(MISS_RATE_SIZE_RANGES), num_classes)
    rates = np.full(shape, np.nan)
    for a, limits in enumerate(MISS_RATE_SIZE_RANGES.values()):
        sizes = np.sqrt(ranked.areas())
        near = (sizes >= limits[0] / _SIZE_TOLERANCE) & (sizes < limits[1] * _SIZE_TOLERANCE)
        kept = ranked.select(near)
        least = min(*protocol.iou_thresholds, _REGION_THRESHOLD)
        # Converted twice, even the smallest share of a large region is over the threshold.
        pairs = find_overlaps(truth, kept, _ANY_SHARE if protocol.miss_rate_quirks else least)
        if protocol.miss_rate_quirks:
            pairs = _convert_twice(pairs, truth, kept)

        ignored = _ignored_objects(truth, limits, protocol.ignore_uncertain)
        counted = np.bincount(truth.class_index[~ignored], minlength=num_classes)
        by_class = _rank_by_class(kept, num_classes)
        nowhere = np.zeros(len(kept.scores), dtype=bool)

        above = np.nextafter(_REGION_THRESHOLD, 1)
        for t, threshold in enumerate(protocol.iou_thresholds):
            matching = match_greedily(pairs, len(kept.scores), ignored, threshold, above)
            for k in np.flatnonzero(counted):
                is_true, is_false = _true_and_false(matching, nowhere, by_class[k])
                # What is ignored must not stand at the start of the ranking either.
                is_true, is_false = (kind[is_true | is_false] for kind in (is_true, is_false))
                recall = np.cumsum(is_true) / counted[k]
                false_per_image = np.cumsum(is_false) / len(truth.image_ids)
                rates[t, a, k] = _log_average(recall, false_per_image, protocol.miss_rate_quirks)
    return rates


def _log_average(recall: np.ndarray, false_per_image: np.ndarray, quirks: bool) -> float:
    last = np.searchsorted(false_per_image, _FALSE_PER_IMAGE, side="right") - 1
    start = recall[-1] if quirks and len(recall) else 0.0
    reached = np.where(last >= 0, np.append(recall, 0.0)[last], start)
    return float(np.exp(np.log(np.maximum(1 - reached, _LEAST_MISS)).mean()))


def _convert_twice(pairs: OverlapPairs, truth: BoxTruth, detections: BoxDetections) -> OverlapPairs:
    """What the released script compares with the threshold: IoD taken for an IoU."""
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    ratio = sides.prod(axis=1)[pairs.truth] / detections.areas()[pairs.detection]
    return pairs._replace(iod=pairs.iod / (1 + pairs.iod) * (1 + ratio))


def _ignored_objects(
    truth: BoxTruth, limits: tuple[float, float], ignore_uncertain: bool
) -> np.ndarray:
    flagged = truth.ignore | truth.uncertain if ignore_uncertain else truth.ignore
    return flagged | ~_within(truth.areas, limits)


def _within(areas: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (areas >= limits[0] ** 2) & (areas <= limits[1] ** 2)


def _rank_by_class(detections: BoxDetections, num_classes: int) -> list[np.ndarray]:
    """Detections of each class in decreasing score, equal ones in their order."""
    order = np.argsort(-detections.scores, kind="stable")
    return [order[detections.class_index[order] == k] for k in range(num_classes)]


def _true_and_false(
    matching: Matching, outside: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    is_true = matching.truth[rows] >= 0
    return is_true, ~(is_true | matching.ignored[rows] | outside[rows])
