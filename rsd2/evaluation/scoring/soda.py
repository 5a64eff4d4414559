"""SODA-A's metric: COCO's average precision of rotated boxes by size, on merged whole images.

Source: Cheng et al., "Towards Large-Scale Small Object Detection", TPAMI 2023, and its released
evaluation. That evaluation is not COCO's in one respect: a detection is compared with the object
that it overlaps most, and with no other one if an earlier detection has taken that object.

Shapes: K classes, T thresholds, A size ranges, D detections, G objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rsd2.evaluation.matching.boxes import BoxDetections, rank_detections
from rsd2.evaluation.matching.polygons import Regions, best_overlaps
from rsd2.evaluation.matching.serial_torch import serial_torch
from rsd2.structures import corners_to_boxes

from .average_precision import best_precision_at, precision_recall
from .dota import COCO_IOU_THRESHOLDS, GroundTruth

SODA_AREA_RANGES = {
    "small": (0.0, 32.0**2),
    "eS": (0.0, 12.0**2),
    "rS": (12.0**2, 20.0**2),
    "gS": (20.0**2, 32.0**2),
    "N": (32.0**2, 40.0 * 50.0),
}
"""Name -> (smallest, largest) area in square pixels, both ends included: all small objects,
extremely, relatively and generally small ones, and normal ones. Larger objects never count."""
SODA_MAX_DETECTIONS = 20_000
_RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class SodaScores:
    """Scores in [0, 1]; ``nan`` for a class without object in a range.

    Attributes:
        precision: (T, A, K) average precision.
        recall: (T, A, K) final recall.
        num_counted: (A, K) int64, objects in each range.
    """

    precision: np.ndarray
    recall: np.ndarray
    num_counted: np.ndarray


def score_soda(
    truth: GroundTruth, detections: BoxDetections, max_detections: int = SODA_MAX_DETECTIONS
) -> SodaScores:
    """Score detections on whole images by SODA-A's rules.

    Objects are the smallest rectangles around their polygons. In each range of sizes, larger and
    smaller objects are neither found nor missed; nor do detections count that match them, or that
    match nothing and lie outside the range themselves.

    Args:
        truth: objects of the whole images, without the regions to be ignored, which the protocol
            does not use.
        detections: rotated boxes (D, 5) on the same images and classes.
        max_detections: most detections of one class in one image.

    Returns:
        The scores, at COCO's thresholds.
    """
    num_classes = len(truth.class_names)
    ranked = rank_detections(detections, max_detections)
    boxes = corners_to_boxes(torch.from_numpy(truth.polygons)).numpy().reshape(-1, 5)
    objects, found = Regions.from_boxes(boxes), Regions.from_boxes(ranked.boxes)
    with serial_torch():
        best, iou = best_overlaps(
            found,
            ranked.image_index * num_classes + ranked.class_index,
            objects,
            truth.image_index * num_classes + truth.class_index,
            # The limit is excluded there, but an IoU equal to the threshold is a match here.
            min_iou=np.nextafter(min(COCO_IOU_THRESHOLDS), 0),
        )

    # Stable, so that equal scores rank by image and place.
    order = np.argsort(-ranked.scores, kind="stable")
    best, iou, classes = best[order], iou[order], ranked.class_index[order]
    areas = found.areas[order]

    # Objects and detections of each range, and the rows of each class, are the same at all
    # thresholds.
    ranges = list(SODA_AREA_RANGES.values())
    counted = [(objects.areas >= low) & (objects.areas <= high) for low, high in ranges]
    within = [(areas >= low) & (areas <= high) for low, high in ranges]
    rows = [np.flatnonzero(classes == k) for k in range(num_classes)]
    num_counted = np.stack(
        [np.bincount(truth.class_index[one], minlength=num_classes) for one in counted]
    )

    shape = (len(COCO_IOU_THRESHOLDS), len(ranges), num_classes)
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    for t, threshold in enumerate(COCO_IOU_THRESHOLDS):
        matches = np.flatnonzero(iou >= threshold)
        # The first detection of the ranking takes the object; later ones have matched nothing.
        takers = matches[np.unique(best[matches], return_index=True)[1]]

        for a, counts in enumerate(counted):
            is_true, is_false = np.zeros(len(order), dtype=bool), within[a].copy()
            is_true[takers], is_false[takers] = counts[best[takers]], False

            for k in np.flatnonzero(num_counted[a]):
                own = rows[k]
                curve = precision_recall(is_true[own], is_false[own], num_counted[a, k])
                precision[t, a, k] = best_precision_at(*curve, _RECALL_POINTS).mean()
                recall[t, a, k] = curve[1][-1] if len(own) else 0.0

    return SodaScores(precision, recall, num_counted)
