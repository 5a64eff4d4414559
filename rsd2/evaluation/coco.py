"""Detectron2 evaluator of COCO's metric for boxes, from a model or from a result file."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import faster_coco_eval
import numpy as np
from tabulate import tabulate

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .matching.boxes import BoxDetections, BoxTruth
from .report import mean_percent
from .scoring.aitod import score_coco
from .scoring.dota import COCO_IOU_THRESHOLDS

_logger = logging.getLogger(__name__)


class CocoEvaluator(BoxEvaluator):
    """COCO's AP and AR, over all sizes and by size.

    ``max_detections``, of one class in one image, defaults to COCO's 100 if None.
    """

    metrics_file = "metrics_coco.json"
    title: ClassVar[str] = "COCO boxes"
    area_ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "all": (0.0, 1e10),
        "s": (0.0, 32.0**2),
        "m": (32.0**2, 96.0**2),
        "l": (96.0**2, 1e10),
    }
    """Name -> smallest and largest area in square pixels; the first has all objects."""
    numbers: ClassVar[tuple[int, ...]] = (1, 10, 100)
    """Numbers of detections at which recall is reported; the last is the limit."""
    further_protocol: ClassVar[Mapping[str, str]] = {}

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of the dataset.
            detections: detections on its images.

        Returns:
            In percent, means over the classes with objects: ``AP``, ``AP50``, ``AP75``,
            ``AP_<size>``, ``AR_<number>``, ``AR_<size>``, what :meth:`further_scores` adds, and
            ``AP-<class>``.
        """
        most = self.max_detections or self.numbers[-1]

        # Recall is also reported at fewer detections, as far as the limit allows them.
        numbers = [*(n for n in self.numbers[:-1] if n < most), most]
        precision, recall = score_coco(truth, detections, self.area_ranges, numbers)

        values = {"AP": precision[:, 0], "AP50": precision[0, 0], "AP75": precision[5, 0]}
        # The first range is "all", whose names have no suffix.
        sizes = list(enumerate(self.area_ranges))[1:]
        values |= {f"AP_{size}": precision[:, a] for a, size in sizes}
        values |= {f"AR_{number}": recall[:, 0, :, m] for m, number in enumerate(numbers)}
        values |= {f"AR_{size}": recall[:, a, :, -1] for a, size in sizes}
        values |= self.further_scores(truth, detections, most)
        values |= {f"AP-{name}": precision[:, 0, k] for k, name in enumerate(truth.class_names)}

        result = OrderedDict((name, mean_percent(value)) for name, value in values.items())
        _logger.info("Scores:\n%s", tabulate(result.items(), floatfmt=".2f", tablefmt="pipe"))
        protocol = {
            "name": self.title,
            "iou_rule": "IoU >= t",
            "iou_thresholds": list(COCO_IOU_THRESHOLDS),
            "area_ranges_px2": {name: list(ends) for name, ends in self.area_ranges.items()},
            "ap_method": "101 recall points",
            "mean": "over the classes that have an object in the range",
            "max_detections_per_image_and_class": most,
            "recall_at_detections": numbers,
            "matching": f"faster-coco-eval {faster_coco_eval.__version__}",
            **self.further_protocol,
        }
        return Evaluation(result, protocol, count_objects(truth.ignore))

    def further_scores(
        self, truth: BoxTruth, detections: BoxDetections, most: int
    ) -> dict[str, np.ndarray]:
        """Return what a metric has besides COCO's numbers.

        Args:
            truth: labels of the dataset.
            detections: detections on its images.
            most: most detections of one class in one image.

        Returns:
            Name -> values in [0, 1] by class, ``nan`` where undefined.
        """
        return {}
