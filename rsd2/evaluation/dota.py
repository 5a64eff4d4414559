"""Detectron2 evaluator of DOTA's Task 1 protocol on merged whole images."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import dota_report
from .evaluator import DetectionEvaluator, Evaluation
from .files.task1 import check_task1_names, read_task1, write_task1_zip
from .matching.boxes import BoxDetections
from .records import RotatedBoxMerging
from .scoring.dota import (
    COCO_IOU_THRESHOLDS,
    Detections,
    GroundTruth,
    check_protocol,
    score_detections,
)

_logger = logging.getLogger(__name__)

SUBMISSION_FILE = "Task1.zip"


class DotaEvaluator(DetectionEvaluator):
    """Average precision of rotated boxes as the DOTA server computes it.

    Outputs of windows are moved to their whole image and merged by rotated NMS, then scored against
    the labelled quadrilaterals by :func:`rsd2.evaluation.score_detections` (polygon IoU strictly
    above the threshold, VOC average precision, mean over the classes with ground truth). Outputs
    for whole images are scored as the model gave them: no NMS is applied.

    Predicted rectangles cannot reach IoU 1 with a quadrilateral that is not one, so a perfect
    detector scores below 100 at high thresholds on hand-drawn labels.
    """

    metrics_file = "metrics_dota.json"
    limits_images = True
    warnings = {
        **DetectionEvaluator.warnings,
        "objects_self_crossing_repaired": "ground-truth polygons cross themselves and were "
        "repaired (the area inside their outline counts)",
        "objects_without_area": "ground-truth polygons have no area; nothing can match them",
    }

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        nms_threshold: float | None = 0.1,
        iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
        ap_method: str = "voc07",
        difficult_policy: str = "v1.0",
        score_floor: float | None = None,
        max_detections: int | None = None,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
        format_only: bool = False,
    ) -> None:
        """Check the protocol and the output folder; the labels are read by :meth:`reset`.

        Args:
            dataset_name: see `DetectionEvaluator`, as the last two.
            output_dir: folder for ``metrics_dota.json`` (scores, protocol, counts, versions) and
                ``Task1.zip`` for the DOTA server; created if absent. None writes nothing.
            nms_threshold: rotated IoU in [0, 1] above which the windows' detections of one class
                are duplicates (mmrotate 0.1, DOTA devkit 0.3); None merges without suppression.
            iou_thresholds: polygon IoU of each threshold, in [0, 1).
            ap_method: rule of the average precision, ``"voc07"`` (DOTA) or ``"area"``.
            difficult_policy: labels that count as objects to be found: ``"v1.0"`` difficulty 0
                alone, as the v1.0 devkit; ``"v1.5"`` 0 and 1, as DOTA v1.5 and v2.0;
                ``"count-all"`` also 2, objects cut by tiling. The others are ignored.
            score_floor: detections with a smaller score are dropped; None keeps all.
            max_detections: most detections per whole image after merging, > 0; None keeps all.
            train_dataset_names: datasets the model was trained on.
            distributed: whether to gather the outputs of all processes.
            format_only: write the detections and score nothing.

        Raises:
            ValueError: the protocol is impossible.
            OSError: the output folder cannot be written.
        """
        self._thresholds = check_protocol(iou_thresholds, ap_method, difficult_policy)
        self._rules = {"ap_method": ap_method, "difficult_policy": difficult_policy}
        self._submitted: Detections | None = None
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            merging=RotatedBoxMerging(nms_threshold, score_floor=score_floor),
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
            format_only=format_only,
        )

    def reset(self) -> None:
        """Forget all outputs and the submission, see :meth:`DetectionEvaluator.reset`."""
        self._submitted = None
        super().reset()

    def process_file(self, path: str | Path) -> None:
        """Read a Task 1 submission instead of the outputs of a model.

        Its polygons are scored as they are, all of them: ``nms_threshold``, ``score_floor`` and
        ``max_detections`` belong to the making of a submission.

        Args:
            path: a zip, or a folder that holds the text files, see :func:`read_task1`.

        Raises:
            FileNotFoundError: the path or the file of a class is missing.
            ValueError: the files cannot be used; the message names file and line.
        """
        self.reset()
        self._submitted = read_task1(path, self._truth.image_ids, self._truth.class_names)

    def evaluate(self) -> dict[str, OrderedDict[str, float]]:
        """Score the submission if one was read, else the outputs of the model."""
        if self._submitted is None:
            return super().evaluate()

        predicted = len(np.unique(self._submitted.image_index))
        counts = {
            "images_predicted": predicted,
            "images_without_prediction": len(self._truth.image_ids) - predicted,
            "detections_scored": len(self._submitted),
        }
        return self.finish(self._submitted, counts)

    def read_truth(self, dicts: Sequence[dict], class_names: Sequence[str]) -> GroundTruth:
        """Collect the labels, see :meth:`GroundTruth.from_dicts`."""
        return GroundTruth.from_dicts(dicts, class_names)

    def score(self, truth: GroundTruth, detections: BoxDetections | Detections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of the whole images.
            detections: rotated boxes or polygons on them.

        Returns:
            ``AP``, ``AP50``, ``AP75``, ``AP50-<class>`` ... in percent, with details of each class.
        """
        scores = score_detections(
            truth, _as_detections(detections), iou_thresholds=self._thresholds, **self._rules
        )

        _logger.info("Scores:\n%s", dota_report.format_table(scores, truth.class_names))
        return Evaluation(
            result=dota_report.summarize(scores, truth.class_names),
            protocol=dota_report.describe_protocol(
                scores, **self._rules, max_detections_per_image=self.max_detections
            ),
            counts={
                "objects_that_count": int(scores.num_counted.sum()),
                "objects_ignored": int(scores.num_ignored.sum()),
                "objects_self_crossing_repaired": scores.num_repaired,
                "objects_without_area": scores.num_degenerate,
            },
            details={"per_class": dota_report.per_class_record(scores, truth.class_names)},
        )

    def write_detections(self, folder: Path, detections: BoxDetections | Detections) -> None:
        """Write the submission, unless its format cannot hold the names.

        Raises:
            ValueError: the names do not fit, and the submission is all that was asked for.
        """
        names = self._truth.image_ids, self._truth.class_names
        # Scores exist already: names that the server's format cannot hold must not lose them.
        try:
            check_task1_names(*names)
        except ValueError as error:
            if self.format_only:
                raise
            _logger.warning("No %s is written: %s", SUBMISSION_FILE, error)
            return
        write_task1_zip(folder / SUBMISSION_FILE, *names, _as_detections(detections))


def _as_detections(detections: BoxDetections | Detections) -> Detections:
    """Return detections in the form that the DOTA scoring takes."""
    return detections if isinstance(detections, Detections) else Detections(*detections)
