"""Detectron2 evaluator of AI-TOD's metric."""

from __future__ import annotations

import numpy as np

from .coco import CocoEvaluator
from .matching.boxes import BoxDetections, BoxTruth
from .scoring.aitod import AITOD_AREA_RANGES, AITOD_MAX_DETECTIONS, optimal_lrp


class AitodEvaluator(CocoEvaluator):
    """COCO's AP with up to 1500 detections, by size from very tiny on, and oLRP.

    ``max_detections``, of one class in one image, defaults to AI-TOD's 1500 if None. Besides the
    names of `CocoEvaluator` there are ``oLRP``, ``oLRP_localisation``, ``oLRP_false_positive`` and
    ``oLRP_false_negative``. ``AP25``, which the released code prints, is left out: 0.25 is not
    among its thresholds, so that it is always -1 there.
    """

    metrics_file = "metrics_aitod.json"
    title = "AI-TOD (COCO with other sizes and numbers of detections)"
    area_ranges = AITOD_AREA_RANGES
    numbers = AITOD_MAX_DETECTIONS
    further_protocol = {
        "oLRP": "least error over all scores at IoU 0.5, one threshold for each class"
    }

    def further_scores(
        self, truth: BoxTruth, detections: BoxDetections, most: int
    ) -> dict[str, np.ndarray]:
        """Return the optimal localisation-recall-precision error and its parts."""
        parts = ("oLRP", "oLRP_localisation", "oLRP_false_positive", "oLRP_false_negative")
        return dict(zip(parts, optimal_lrp(truth, detections, most)))
