"""Detectron2 evaluator of AI-TOD's metric."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict

import faster_coco_eval
import numpy as np
from tabulate import tabulate

from .evaluator import BoxEvaluator
from .matching.boxes import BoxDetections, BoxTruth
from .scoring.aitod import (
    AITOD_AREA_RANGES,
    AITOD_IOU_THRESHOLDS,
    AITOD_MAX_DETECTIONS,
    score_aitod,
)

_logger = logging.getLogger(__name__)


class AitodEvaluator(BoxEvaluator):
    """COCO's AP with up to 1500 detections, by size from very tiny on, and oLRP.

    ``AP25``, which the released code prints, is left
    out: 0.25 is not among its thresholds, so that it is always -1 there.
    """

    metrics_file = "metrics_aitod.json"

    def score(
        self, truth: BoxTruth, detections: BoxDetections
    ) -> tuple[OrderedDict[str, float], dict]:
        """Score the detections.

        Args:
            truth: of the data set.
            detections: on its images.

        Returns:
            (in per cent, means over the classes with objects: ``AP``, ``AP50``, ``AP75``,
            ``AP_vt``, ``AP_t``, ``AP_s``, ``AP_m``, ``AR_1``, ``AR_100``, ``AR_1500``, ``AR_vt``
            ... ``AR_m``, ``oLRP``, ``oLRP_localisation``, ``oLRP_false_positive``,
            ``oLRP_false_negative``, and ``AP-<class>``; the protocol).
        """
        scores = score_aitod(truth, detections)
        precision, recall = scores.precision, scores.recall
        names = list(AITOD_AREA_RANGES)
        sizes = names[1:]
        result = OrderedDict(
            AP=_mean(precision[:, 0]),
            AP50=_mean(precision[0, 0]),
            AP75=_mean(precision[5, 0]),
        )
        result.update({f"AP_{name}": _mean(precision[:, names.index(name)]) for name in sizes})
        for m, number in enumerate(AITOD_MAX_DETECTIONS):
            result[f"AR_{number}"] = _mean(recall[:, 0, :, m])
        result.update({f"AR_{name}": _mean(recall[:, names.index(name), :, -1]) for name in sizes})
        parts = ("oLRP", "oLRP_localisation", "oLRP_false_positive", "oLRP_false_negative")
        result.update({part: _mean(values) for part, values in zip(parts, scores.lrp)})
        for k, name in enumerate(truth.class_names):
            result[f"AP-{name}"] = _mean(precision[:, 0, k])
        rows = [(key, value) for key, value in result.items()]
        _logger.info("Scores:\n%s", tabulate(rows, floatfmt=".2f", tablefmt="pipe"))
        return result, {
            "name": "AI-TOD (COCO with other sizes and numbers of detections)",
            "iou_rule": "IoU >= t",
            "iou_thresholds": [round(float(value), 2) for value in AITOD_IOU_THRESHOLDS],
            "area_ranges_px2": {name: list(ends) for name, ends in AITOD_AREA_RANGES.items()},
            "ap_method": "101 recall points",
            "mean": "over the classes that have an object in the range",
            "max_detections_per_image_and_class": list(AITOD_MAX_DETECTIONS),
            "matching": f"faster-coco-eval {faster_coco_eval.__version__}",
            "oLRP": "least error over all scores at IoU 0.5, one threshold for each class",
        }


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no class has an object: the mean is nan
        return float(100 * np.nanmean(values))
