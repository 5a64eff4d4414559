"""Detectron2 evaluator of SODA-A's metric."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from rsd2.structures import corners_to_boxes

from .dota import DotaEvaluator
from .evaluator import Evaluation
from .matching.boxes import BoxDetections
from .report import mean_percent
from .scoring.dota import COCO_IOU_THRESHOLDS, Detections, GroundTruth
from .scoring.soda import SODA_AREA_RANGES, SODA_MAX_DETECTIONS, score_soda

_logger = logging.getLogger(__name__)


class SodaEvaluator(DotaEvaluator):
    """COCO's AP of rotated boxes by size, on whole images with up to 20,000 detections.

    Outputs of windows are moved to their whole image and merged by rotated NMS at 0.5, as the
    released evaluation does, see :func:`rsd2.evaluation.score_soda`.
    """

    metrics_file = "metrics_soda_a.json"
    limits_images = False

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        nms_threshold: float | None = 0.5,
        max_detections: int | None = SODA_MAX_DETECTIONS,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
        format_only: bool = False,
    ) -> None:
        """Check the output folder; the labels are read by :meth:`reset`.

        Args:
            dataset_name: see `DetectionEvaluator`, as the last two.
            output_dir: folder for ``metrics_soda_a.json`` and ``Task1.zip``; created if absent.
                None writes nothing.
            nms_threshold: rotated IoU in [0, 1] above which the windows' detections of one class
                are duplicates; None merges without suppression.
            max_detections: most detections of one class in one image, > 0; None takes 20,000.
            train_dataset_names: datasets the model was trained on.
            distributed: whether to gather the outputs of all processes.
            format_only: write the detections and score nothing.

        Raises:
            ValueError: the limit is not positive, or there is no folder to write to.
            OSError: the output folder cannot be written.
        """
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
            format_only=format_only,
        )

    def score(self, truth: GroundTruth, detections: BoxDetections | Detections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of the whole images.
            detections: rotated boxes on them, or the polygons of a submission, which are
                replaced by their smallest rectangles.

        Returns:
            In percent, means over the classes with objects: ``AP``, ``AP50``, ``AP75`` of all small
            objects, ``AP_eS``, ``AP_rS``, ``AP_gS``, ``AP_N``, ``AR``, ``AR_eS`` ... ``AR_N``, and
            ``AP-<class>``.
        """
        if isinstance(detections, Detections):
            boxes = corners_to_boxes(torch.from_numpy(detections.corners())).numpy()
            detections = BoxDetections(
                detections.image_index, detections.class_index, detections.scores, boxes
            )

        most = self.max_detections or SODA_MAX_DETECTIONS
        scores = score_soda(truth, detections, most)
        precision, recall = scores.precision, scores.recall

        # The first range holds all small objects; its names have no suffix.
        sizes = list(enumerate(SODA_AREA_RANGES))[1:]
        values = {"AP": precision[:, 0], "AP50": precision[0, 0], "AP75": precision[5, 0]}
        values |= {f"AP_{size}": precision[:, a] for a, size in sizes}
        values |= {"AR": recall[:, 0]} | {f"AR_{size}": recall[:, a] for a, size in sizes}
        values |= {f"AP-{name}": precision[:, 0, k] for k, name in enumerate(truth.class_names)}

        result = OrderedDict((name, mean_percent(value)) for name, value in values.items())
        _logger.info("Scores:\n%s", tabulate(result.items(), floatfmt=".2f", tablefmt="pipe"))
        num_counted = int(scores.num_counted[0].sum())
        protocol = {
            "name": "SODA-A (COCO's AP of rotated boxes, by size)",
            "iou_rule": "IoU >= t of rotated boxes, double precision",
            "matching": "by decreasing score, each detection takes its best-overlapping object",
            "iou_thresholds": list(COCO_IOU_THRESHOLDS),
            "area_ranges_px2": {name: list(ends) for name, ends in SODA_AREA_RANGES.items()},
            "ap_method": "101 recall points",
            "mean": "over the classes that have an object in the range",
            "max_detections_per_image_and_class": most,
            "ignore_regions": "not used: detections in them count like others",
        }
        num_ignored = len(truth.polygons) - num_counted
        counts = {"objects_that_count": num_counted, "objects_ignored": num_ignored}
        return Evaluation(result, protocol, counts)
