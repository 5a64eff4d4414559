"""Detectron2 evaluator of AI-TOD's metric."""

from __future__ import annotations

import logging
from collections import OrderedDict

import faster_coco_eval
from tabulate import tabulate

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .matching.boxes import BoxDetections, BoxTruth
from .report import mean_percent
from .scoring.aitod import (
    AITOD_AREA_RANGES,
    AITOD_IOU_THRESHOLDS,
    AITOD_MAX_DETECTIONS,
    score_aitod,
)

_logger = logging.getLogger(__name__)


class AitodEvaluator(BoxEvaluator):
    """COCO's AP with up to 1500 detections, by size from very tiny on, and oLRP.

    ``max_detections``, of one class in one image, are AI-TOD's 1500 if None. ``AP25``, which the
    released code prints, is left out: 0.25 is not among its thresholds, so that it is always -1
    there.
    """

    metrics_file = "metrics_aitod.json"

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of the dataset.
            detections: detections on its images.

        Returns:
            In percent, means over the classes with objects: ``AP``, ``AP50``, ``AP75``,
            ``AP_vt``, ``AP_t``, ``AP_s``, ``AP_m``, ``AR_1``, ``AR_100``, ``AR_1500``, ``AR_vt``
            ... ``AR_m``, ``oLRP``, ``oLRP_localisation``, ``oLRP_false_positive``,
            ``oLRP_false_negative``, and ``AP-<class>``.
        """
        most = self.max_detections or AITOD_MAX_DETECTIONS[-1]
        numbers = [*(n for n in AITOD_MAX_DETECTIONS[:-1] if n < most), most]
        scores = score_aitod(truth, detections, numbers)
        precision, recall = scores.precision, scores.recall
        values = {"AP": precision[:, 0], "AP50": precision[0, 0], "AP75": precision[5, 0]}

        sizes = list(enumerate(AITOD_AREA_RANGES))[1:]
        values |= {f"AP_{size}": precision[:, a] for a, size in sizes}
        values |= {f"AR_{number}": recall[:, 0, :, m] for m, number in enumerate(numbers)}
        values |= {f"AR_{size}": recall[:, a, :, -1] for a, size in sizes}

        parts = ("oLRP", "oLRP_localisation", "oLRP_false_positive", "oLRP_false_negative")
        values |= dict(zip(parts, scores.lrp))
        values |= {f"AP-{name}": precision[:, 0, k] for k, name in enumerate(truth.class_names)}
        result = OrderedDict((name, mean_percent(value)) for name, value in values.items())
        _logger.info("Scores:\n%s", tabulate(result.items(), floatfmt=".2f", tablefmt="pipe"))
        protocol = {
            "name": "AI-TOD (COCO with other sizes and numbers of detections)",
            "iou_rule": "IoU >= t",
            "iou_thresholds": [round(float(value), 2) for value in AITOD_IOU_THRESHOLDS],
            "area_ranges_px2": {name: list(ends) for name, ends in AITOD_AREA_RANGES.items()},
            "ap_method": "101 recall points",
            "mean": "over the classes that have an object in the range",
            "max_detections_per_image_and_class": most,
            "recall_at_detections": numbers,
            "matching": f"faster-coco-eval {faster_coco_eval.__version__}",
            "oLRP": "least error over all scores at IoU 0.5, one threshold for each class",
        }
        return Evaluation(result, protocol, count_objects(truth.ignore))
