"""AI-TOD's metric: COCO's average precision with other sizes and 1500 detections, and oLRP.

Sources: Wang et al., "Tiny Object Detection in Aerial Images", ICPR 2020; Oksuz et al.,
"Localization Recall Precision", ECCV 2018, for oLRP. The matching of the average precision is that
of faster-coco-eval.

Shapes: K classes, T thresholds, A area ranges, M numbers of detections, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from rsd2.evaluation.matching.boxes import (
    BoxDetections,
    BoxTruth,
    find_overlaps,
    match_greedily,
    rank_detections,
)

AITOD_AREA_RANGES = {
    "all": (0.0, 1e10),
    "vt": (0.0, 8.0**2),
    "t": (8.0**2, 16.0**2),
    "s": (16.0**2, 32.0**2),
    "m": (32.0**2, 1e10),
}
"""Name -> (least, greatest) area in square pixels, both ends included."""
AITOD_MAX_DETECTIONS = (1, 100, 1500)
AITOD_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)

_LRP_THRESHOLD = 0.5


@dataclass(frozen=True)
class AitodScores:
    """Scores in [0, 1]; ``nan`` for a class without object in a range.

    Attributes:
        precision: (T, A, K) average precision at the greatest number of detections.
        recall: (T, A, K, M) greatest recall.
        lrp: (4, K) optimal localisation-recall-precision error (0 is perfect) and its parts
            localisation, false positives and false negatives, at IoU 0.5.
    """

    precision: np.ndarray
    recall: np.ndarray
    lrp: np.ndarray


def score_aitod(
    truth: BoxTruth,
    detections: BoxDetections,
    max_detections: Sequence[int] = AITOD_MAX_DETECTIONS,
) -> AitodScores:
    """Score detections by AI-TOD's rules.

    Args:
        truth: labels of the dataset; what is flagged ``ignore`` is a crowd in COCO's sense.
        detections: detections on its images.
        max_detections: M numbers of detections of one class in one image, increasing.

    Returns:
        The scores.
    """
    precision, recall = score_coco(truth, detections, max_detections=max_detections)
    lrp = optimal_lrp(truth, detections, max_detections[-1])
    return AitodScores(precision, recall, lrp)


def optimal_lrp(
    truth: BoxTruth, detections: BoxDetections, max_detections: int = AITOD_MAX_DETECTIONS[-1]
) -> np.ndarray:
    """Optimal localisation-recall-precision error at IoU 0.5 (Oksuz et al. 2018, section 3).

    With the scores cut off at s, the error is the sum of (1 - IoU) / 0.5 over the true positives
    plus the numbers of false positives and false negatives, divided by the number of all three;
    the optimum is the least over all s. AI-TOD calls it oLRP.

    Args:
        truth: labels of the dataset.
        detections: detections on its images.
        max_detections: most detections of one class in one image.

    Returns:
        (4, K) float64 in [0, 1]: the least error, and at its s the mean of 1 - IoU of the true
        positives (``nan`` if there is none), 1 - precision (``nan`` likewise if there is no
        detection) and 1 - recall. ``nan`` for classes without object.
    """
    ranked = rank_detections(detections, max_detections)
    pairs = find_overlaps(truth, ranked, _LRP_THRESHOLD)
    matching = match_greedily(
        pairs, len(ranked.scores), truth.ignore, _LRP_THRESHOLD, _LRP_THRESHOLD
    )
    order = np.argsort(-ranked.scores, kind="stable")
    order = order[~matching.ignored[order]]

    errors = np.full((4, len(truth.class_names)), np.nan)
    for k in range(len(truth.class_names)):
        num_objects = int((~truth.ignore & (truth.class_index == k)).sum())
        if not num_objects:
            continue
        rows = order[ranked.class_index[order] == k]

        is_true = matching.truth[rows] >= 0
        scores = np.append(ranked.scores[rows], -np.inf)
        cuts = np.flatnonzero(scores[:-1] != scores[1:])  # equal scores are cut off together
        found = np.append(0, np.cumsum(is_true)[cuts])
        loose = np.append(0.0, np.cumsum(np.where(is_true, 1 - matching.iou[rows], 0.0))[cuts])
        false = np.append(0, cuts + 1) - found
        missed = num_objects - found
        total = (loose / (1 - _LRP_THRESHOLD) + false + missed) / (found + false + missed)
        best = int(total.argmin())
        hits, shown = int(found[best]), int(found[best] + false[best])
        errors[:, k] = (
            total[best],
            loose[best] / hits if hits else np.nan,
            false[best] / shown if shown else np.nan,
            missed[best] / num_objects,
        )
    return errors


def score_coco(
    truth: BoxTruth,
    detections: BoxDetections,
    area_ranges: Mapping[str, tuple[float, float]] = AITOD_AREA_RANGES,
    max_detections: Sequence[int] = AITOD_MAX_DETECTIONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and recall at COCO's thresholds, by faster-coco-eval.

    Args:
        truth: labels of the dataset; what is flagged ``ignore`` is a crowd in COCO's sense.
        detections: detections on its images.
        area_ranges: A names -> (least, greatest) area in square pixels, both ends included.
        max_detections: M numbers of detections of one class in one image, increasing.

    Returns:
        (precision (T, A, K), recall (T, A, K, M)), as in ``AitodScores``.
    """
    num_classes = len(truth.class_names)
    nan = np.full((len(AITOD_IOU_THRESHOLDS), len(area_ranges), num_classes), np.nan)
    if not len(truth.boxes):
        return nan, np.repeat(nan[..., None], len(max_detections), axis=3)

    images = [{"id": index + 1} for index in range(len(truth.image_ids))]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(truth.class_names)]
    ground_truth, results = COCO(), COCO()
    columns = (truth.image_index, truth.class_index, truth.boxes, truth.areas, truth.ignore)
    annotations = [
        {"id": number, **_entry(image, label, box), "area": area, "iscrowd": int(ignore)}
        for number, (image, label, box, area, ignore) in enumerate(
            zip(*(column.tolist() for column in columns)), start=1
        )
    ]
    ground_truth.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    columns = (*detections, detections.areas())
    found = [
        {"id": number, **_entry(image, label, box), "score": score, "area": area, "iscrowd": 0}
        for number, (image, label, score, box, area) in enumerate(
            zip(*(column.tolist() for column in columns)), start=1
        )
    ]
    results.dataset = {"images": images, "annotations": found, "categories": categories}
    ground_truth.createIndex()
    results.createIndex()

    scorer = COCOeval_faster(ground_truth, results, iouType="bbox")
    scorer.params.imgIds = [image["id"] for image in images]
    scorer.params.catIds = [category["id"] for category in categories]
    scorer.params.iouThrs = AITOD_IOU_THRESHOLDS
    scorer.params.maxDets = list(max_detections)
    scorer.params.areaRng = [list(ends) for ends in area_ranges.values()]
    scorer.params.areaRngLbl = list(area_ranges)
    scorer.evaluate()
    scorer.accumulate()

    # COCO marks classes without object by -1. Axes: T, recall points, K, A, M.
    curves = np.asarray(scorer.eval["precision"])[..., -1]
    curves = np.where(curves < 0, np.nan, curves).mean(axis=1)
    recall = np.asarray(scorer.eval["recall"])
    recall = np.where(recall < 0, np.nan, recall)
    return curves.transpose(0, 2, 1), recall.transpose(0, 2, 1, 3)


def _entry(image: int, label: int, box: list[float]) -> dict:
    x0, y0, x1, y1 = box
    return {
        "image_id": image + 1,
        "category_id": label + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
    }
