"""Precision, recall and F1 of moving objects, by the protocols of satellite video.

Published numbers follow rules that differ in what counts as found, in the score threshold and in
the labels; each is a named preset here. Sources: the released evaluations of DSFNet, MICML and
HiEUM, and the description in the VISO paper.

Shapes: I frames, V videos, S score thresholds, D detections and G objects of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from rsd2.evaluation.matching.boxes import (
    BoxDetections,
    BoxTruth,
    box_areas,
    find_overlaps,
    match_greedily,
    rank_detections,
)

from .average_precision import average_precision_by_group

RULES = ("iou", "distance")

_ANY_OVERLAP = 1e-12
_FAR = 10.0  # pixels that are added to the threshold for pairs which cannot match


@dataclass(frozen=True)
class MovingObjectProtocol:
    """What counts as found.

    Attributes:
        name: names the results.
        rule: ``"iou"``: pairs are chosen that maximise the sum of the IoUs, and those with an IoU
            above the threshold count; ``"distance"``: pairs are chosen that minimise the sum of
            the distances of the centres, and those nearer than the threshold count.
        threshold: least IoU, in [0, 1), or greatest distance, pixels, > 0; excluded itself.
        score_thresholds: detections count above this score. Of several the one with the best mean
            F1 is reported.
        mean_ap: also report the area under the precision-recall curve; for the rule ``"iou"``.
        labels: whose labels the published numbers refer to; only for the record.
    """

    name: str
    rule: str
    threshold: float
    score_thresholds: tuple[float, ...] = (0.3,)
    mean_ap: bool = False
    labels: str = ""

    def __post_init__(self) -> None:
        """Validate the protocol."""
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        limits_hold = 0 <= self.threshold < 1 if self.rule == "iou" else self.threshold > 0
        if not limits_hold:
            raise ValueError(
                f"threshold must lie in [0, 1) for an IoU and be positive for a distance, got "
                f"{self.threshold} for {self.rule}"
            )
        thresholds = tuple(float(value) for value in self.score_thresholds)
        if not thresholds or not all(0 <= value < 1 for value in thresholds):
            raise ValueError(f"score_thresholds must lie in [0, 1), got {self.score_thresholds}")
        object.__setattr__(self, "score_thresholds", thresholds)
        if self.mean_ap and self.rule != "iou":
            raise ValueError("mean_ap is defined for the rule 'iou' only; set mean_ap=False")


_OLD, _NEW = "RsCarData, old (DSFNet)", "RsCarData, new (HiEUM)"
MOVING_OBJECT_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MovingObjectProtocol("micml", "iou", 0.0, labels=_OLD),
        MovingObjectProtocol("dsfnet_iou05", "iou", 0.05, labels=_OLD),
        MovingObjectProtocol("dsfnet_iou10", "iou", 0.1, labels=_OLD),
        MovingObjectProtocol("dsfnet_iou20", "iou", 0.2, labels=_OLD),
        MovingObjectProtocol("distance5", "distance", 5.0, labels=_OLD),
        MovingObjectProtocol(
            "distance5_best", "distance", 5.0, tuple(k / 20 for k in range(1, 13))
        ),
        MovingObjectProtocol("hieum", "distance", 5.0, (0.2, 0.25, 0.3), labels=_NEW),
        MovingObjectProtocol("viso", "iou", 0.0, mean_ap=True, labels="VISO"),
    )
}
"""Presets by name. ``distance5`` is the other mode of DSFNet's and MICML's script;
``distance5_best`` is nobody's published protocol, but compares short trainings, whose scores are
not yet calibrated, each at its own threshold. VISO's paper gives no score threshold; 0.3 is
MICML's."""


@dataclass(frozen=True)
class MovingObjectScores:
    """Counts of each video.

    Attributes:
        protocol: protocol of the counts.
        videos: V names.
        counts: (S, V, 3) int64: true positives, false positives, false negatives.
        average_precision: (V,) in [0, 1], ``nan`` without objects; None if not asked for.
    """

    protocol: MovingObjectProtocol
    videos: tuple[str, ...]
    counts: np.ndarray
    average_precision: np.ndarray | None

    def rates(self) -> np.ndarray:
        """Return precision, recall and F1 of each video.

        Returns:
            (S, V, 3) float64 in [0, 1]; ``nan`` for videos without any object; a precision without
            detections is 0.
        """
        return _rates(self.counts)

    def means(self) -> np.ndarray:
        """Return the unweighted means over the videos that have objects.

        The mean F1 is the mean of the F1s, as in the official evaluation.

        Returns:
            (S, 3) float64; ``nan`` if no video has an object.
        """
        has_objects = (self.counts[0, :, 0] + self.counts[0, :, 2]) > 0
        if not has_objects.any():
            return np.full((len(self.counts), 3), np.nan)
        return self.rates()[:, has_objects].mean(axis=1)

    def pooled(self) -> np.ndarray:
        """Return precision, recall and F1 of all frames together.

        Returns:
            (S, 3) float64; also false positives in videos without objects count.
        """
        return _rates(self.counts.sum(axis=1))

    def best(self) -> int:
        """Return the index of the score threshold with the best mean F1, the first of equals."""
        f1 = self.means()[:, 2]
        return 0 if np.isnan(f1).all() else int(f1.argmax())


def _rates(counts: np.ndarray) -> np.ndarray:
    true, false, missed = np.moveaxis(counts.astype(np.float64), -1, 0)
    rates = np.stack(
        [
            true / np.maximum(true + false, 1),
            true / np.maximum(true + missed, 1),
            2 * true / np.maximum(2 * true + false + missed, 1),
        ],
        axis=-1,
    )
    rates[true + missed == 0] = np.nan
    return rates


def count_matches(
    detections: np.ndarray, objects: np.ndarray, protocol: MovingObjectProtocol
) -> int:
    """Count the true positives of one frame by the best assignment.

    Args:
        detections: (D, 4) XYXY, pixels.
        objects: (G, 4).
        protocol: its rule and threshold.

    Returns:
        number of pairs that count, at most min(D, G).
    """
    if not len(detections) or not len(objects):
        return 0
    if protocol.rule == "iou":
        low = np.maximum(detections[:, None, :2], objects[None, :, :2])
        high = np.minimum(detections[:, None, 2:], objects[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        union = box_areas(detections)[:, None] + box_areas(objects)[None, :] - shared
        overlap = shared / (union + 1e-7)  # as the official evaluation
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        return int((overlap[rows, columns] > protocol.threshold).sum())

    # What is too far costs the same wherever it is, so that the sum prefers pairs that count.
    centers, others = (boxes[:, :2] + boxes[:, 2:] for boxes in (detections, objects))
    distance = np.linalg.norm(centers[:, None] - others[None, :], axis=2) / 2
    cost = np.where(distance > protocol.threshold, protocol.threshold + _FAR, distance)
    rows, columns = linear_sum_assignment(cost)
    return int((distance[rows, columns] < protocol.threshold).sum())


def score_moving_objects(
    truth: BoxTruth,
    detections: BoxDetections,
    videos: Sequence[str],
    protocol: MovingObjectProtocol,
) -> MovingObjectScores:
    """Count what is found in every video.

    Objects of different classes never match; the counts are sums over the classes. Objects flagged
    ``ignore`` do not count. A frame without detections misses all its objects.

    Args:
        truth: labels of I frames.
        detections: detections on them.
        videos: name of each frame's video.
        protocol: what counts as found.

    Returns:
        The counts; the videos in the order in which they come first.

    Raises:
        ValueError: if there are not as many names as frames.
    """
    if len(videos) != len(truth.image_ids):
        raise ValueError(f"{len(videos)} names of videos for {len(truth.image_ids)} frames")
    names = tuple(dict.fromkeys(videos))
    position = {name: index for index, name in enumerate(names)}
    num_classes = max(len(truth.class_names), 1)
    truth_rows = _rows_by_key(
        truth.image_index * num_classes + truth.class_index, np.flatnonzero(~truth.ignore)
    )

    keys = detections.image_index * num_classes + detections.class_index
    counts = np.zeros((len(protocol.score_thresholds), len(names), 3), dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    for s, score_threshold in enumerate(protocol.score_thresholds):
        rows = _rows_by_key(keys, np.flatnonzero(detections.scores > score_threshold))
        for key in truth_rows.keys() | rows.keys():
            found, real = rows.get(key, none), truth_rows.get(key, none)
            true = count_matches(detections.boxes[found], truth.boxes[real], protocol)
            video = position[videos[key // num_classes]]
            counts[s, video] += (true, len(found) - true, len(real) - true)

    precision = None
    if protocol.mean_ap:
        index = np.array([position[name] for name in videos], dtype=np.int64)
        precision = _average_precision(truth, detections, index, len(names), protocol)
    return MovingObjectScores(protocol, names, counts, precision)


def _rows_by_key(keys: np.ndarray, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each key, which stands for a frame and class."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    unique, starts = np.unique(keys[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(order, starts[1:])))


def _average_precision(
    truth: BoxTruth,
    detections: BoxDetections,
    video_index: np.ndarray,
    num_videos: int,
    protocol: MovingObjectProtocol,
) -> np.ndarray:
    """(V,) area under the curve, mean over the classes with objects; greedy by score, by IoU."""
    ranked = rank_detections(detections, None)
    least = max(protocol.threshold, _ANY_OVERLAP)
    pairs = find_overlaps(truth, ranked, least)
    above = np.nextafter(least, 1)
    matching = match_greedily(pairs, len(ranked.scores), truth.ignore, above, None)
    order = np.argsort(-ranked.scores, kind="stable")
    order = order[~matching.ignored[order]]

    num_classes = len(truth.class_names)
    objects = video_index[truth.image_index] * num_classes + truth.class_index
    groups = video_index[ranked.image_index] * num_classes + ranked.class_index
    num_objects = np.bincount(objects[~truth.ignore], minlength=num_videos * num_classes)
    result = average_precision_by_group(matching.truth[order] >= 0, groups[order], num_objects)
    result = result.reshape(num_videos, num_classes)

    counted = np.isfinite(result)
    total = np.where(counted, result, 0).sum(axis=1)
    return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)
