"""Detectron2 evaluator of TinyPerson's protocol on merged whole images."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .matching.boxes import BoxDetections, BoxTruth
from .records import BoxMerging
from .report import mean_percent
from .scoring.tiny import (
    MISS_RATE_SIZE_RANGES,
    TINY_IOU_THRESHOLDS,
    TinyProtocol,
    score_miss_rate,
    score_tiny,
)

_logger = logging.getLogger(__name__)


class TinyEvaluator(BoxEvaluator):
    """AP by size and the miss rate, as TinyPerson defines them.

    The headline is ``AP50_tiny``. Numbers with different ``max_detections``, of the evaluation
    before its update, or without merging of windows are not comparable; the protocol beside the
    numbers says which rules apply.
    """

    metrics_file = "metrics_tiny.json"

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        iou_thresholds: Sequence[float] = TINY_IOU_THRESHOLDS,
        max_detections: int = 200,
        ignore_uncertain: bool = True,
        use_iod: bool = True,
        miss_rate: bool = True,
        miss_rate_quirks: bool = False,
        nms_threshold: float | None = 0.5,
        legacy_pixels: bool = False,
        score_floor: float | None = None,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
        format_only: bool = False,
    ) -> None:
        """Check the protocol; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on, windows or whole images.
            output_dir: folder for ``metrics_tiny.json`` and ``coco_instances_results.json``.
            iou_thresholds: see ``TinyProtocol``, as the next four.
            max_detections: most detections of one class in one merged image.
            ignore_uncertain: whether to ignore uncertain objects.
            use_iod: whether ignored objects take any number of detections, by intersection over
                detection.
            miss_rate: whether to compute it too.
            miss_rate_quirks: whether to compute it as the released script does; it is then named
                ``MRq...``.
            nms_threshold: see ``BoxMerging``, as the next two.
            legacy_pixels: whether to suppress with sides that are one pixel longer.
            score_floor: detections with a smaller score are dropped; None keeps all.
            train_dataset_names: datasets the model was trained on.
            distributed: whether to gather the outputs of all processes.
            format_only: write the detections and score nothing.

        Raises:
            ValueError: the protocol is impossible.
            OSError: the output folder cannot be written.
        """
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            merging=BoxMerging(nms_threshold, legacy_pixels, score_floor),
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
            format_only=format_only,
        )
        self._miss_rate = miss_rate
        self._protocol = TinyProtocol(
            iou_thresholds=tuple(iou_thresholds),
            max_detections=max_detections,
            ignore_uncertain=ignore_uncertain,
            use_iod=use_iod,
            miss_rate_quirks=miss_rate_quirks,
        )

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of whole images.
            detections: detections on them.

        Returns:
            In percent: ``AP<100 t>_<range>`` and ``AR<100 t>_<range>``, means over the classes with
            objects, ``MR<100 t>_<range>``, and with several classes ``AP<100 t>_<range>-<class>``.
        """
        protocol = self._protocol
        scores = score_tiny(truth, detections, protocol)
        # Kind, size ranges, values (T, A, K) and what ends the name of each table of means.
        sizes = protocol.size_ranges
        tables = [("AP", sizes, scores.precision, ""), ("AR", sizes, scores.recall, "")]
        if self._miss_rate:
            kind = "MRq" if protocol.miss_rate_quirks else "MR"
            rates = score_miss_rate(truth, detections, protocol)
            tables.append((kind, MISS_RATE_SIZE_RANGES, rates, ""))
        # With a single class these rows would repeat the means.
        if len(truth.class_names) > 1:
            for k, name in enumerate(truth.class_names):
                tables.append(("AP", sizes, scores.precision[..., k : k + 1], f"-{name}"))

        result: OrderedDict[str, float] = OrderedDict()
        thresholds = [f"{100 * threshold:g}" for threshold in protocol.iou_thresholds]
        for kind, ranges, values, suffix in tables:
            for t, threshold in enumerate(thresholds):
                for a, size in enumerate(ranges):
                    result[f"{kind}{threshold}_{size}{suffix}"] = mean_percent(values[t, a])

        table = _table(result, thresholds, sizes, scores.num_counted)
        _logger.info("Scores:\n%s", table)
        ignored = truth.ignore | (truth.uncertain & protocol.ignore_uncertain)
        return Evaluation(result, self._describe(scores.num_counted), count_objects(ignored))

    def _describe(self, num_counted: np.ndarray) -> dict:
        protocol = self._protocol
        return {
            "name": "TinyPerson, evaluation with ignore regions by IoD (updated TinyBenchmark)",
            "iou_rule": "IoU >= t; of equal IoU the later object",
            "iou_thresholds": list(protocol.iou_thresholds),
            "size_ranges_px": {name: list(ends) for name, ends in protocol.size_ranges.items()},
            "size": "square root of the annotated area, both ends included",
            "ap_method": "101 recall points",
            "mean": "over the classes that have an object in the range",
            "max_detections_per_image_and_class": protocol.max_detections,
            "ignore_uncertain": protocol.ignore_uncertain,
            "ignore_rule": "IoD >= t with any ignored object" if protocol.use_iod else "IoU >= t",
            "miss_rate": None
            if not self._miss_rate
            else {
                "variant": "released script" if protocol.miss_rate_quirks else "fixed",
                "max_detections_per_image_and_class": protocol.miss_rate_max_detections,
                "false_positives_per_image": "9 points, 0.01 to 1, logarithmic",
                "size_ranges_px": {name: list(v) for name, v in MISS_RATE_SIZE_RANGES.items()},
            },
            "objects_that_count_by_size": {
                name: int(number)
                for name, number in zip(protocol.size_ranges, num_counted.sum(axis=1))
            },
        }


def _table(
    result: OrderedDict[str, float],
    thresholds: Sequence[str],
    ranges: Iterable[str],
    num_counted: np.ndarray,
) -> str:
    rows = []
    for name, number in zip(ranges, num_counted.sum(axis=1)):
        values = [result[f"AP{threshold}_{name}"] for threshold in thresholds]
        rates = [result.get(f"MR{threshold}_{name}", np.nan) for threshold in thresholds]
        rows.append([name, int(number), *values, *rates])

    headers = ["size", "objects", *(f"AP{t}" for t in thresholds), *(f"MR{t}" for t in thresholds)]
    return tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe")
