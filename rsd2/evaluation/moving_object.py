"""Detectron2 evaluator of moving objects in satellite video."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import faster_coco_eval
import numpy as np
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .matching.boxes import BoxDetections, BoxTruth
from .report import mean_percent
from .scoring.aitod import score_coco
from .scoring.moving_object import (
    MOVING_OBJECT_PROTOCOLS,
    MovingObjectProtocol,
    MovingObjectScores,
    score_moving_objects,
)

_logger = logging.getLogger(__name__)

_ALL_AREAS = {"all": (0.0, 1e10)}
_RATES = ("precision", "recall", "F1")


class MovingObjectEvaluator(BoxEvaluator):
    """Precision, recall and F1 of each video and their means, and COCO's AP.

    Numbers of different protocols, or of different labels of the same videos, are not comparable;
    the protocols beside the numbers say which these are.
    """

    metrics_file = "metrics_moving_objects.json"

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        protocols: Sequence[str | MovingObjectProtocol] = ("micml",),
        average_precision: bool = True,
        max_detections: int = 100,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
    ) -> None:
        """Check the protocols; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on, with ``video_id``.
            output_dir: gets ``metrics_moving_objects.json`` and ``coco_instances_results.json``.
            protocols: names of `MOVING_OBJECT_PROTOCOLS` or own ones; the first is the headline.
            average_precision: compute COCO's too.
            max_detections: most detections of one class in one frame that the AP sees; 100
                in published numbers, which is fewer than the objects in some frames of RsCarData.
            train_dataset_names: datasets the model was trained on.
            distributed: gather the outputs of all processes.

        Raises:
            ValueError: for an unknown protocol, two of one name, or an impossible number.
            OSError: if the output folder cannot be written.
        """
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
        )

        unknown = [p for p in protocols if isinstance(p, str) and p not in MOVING_OBJECT_PROTOCOLS]
        if unknown:
            raise ValueError(
                f"unknown protocol {unknown[0]!r}; choose among "
                f"{', '.join(MOVING_OBJECT_PROTOCOLS)}, or give a MovingObjectProtocol"
            )
        self._protocols = [
            MOVING_OBJECT_PROTOCOLS[p] if isinstance(p, str) else p for p in protocols
        ]

        names = [protocol.name for protocol in self._protocols]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"protocols must be one or more of different names, got {names}")

        self._average_precision = average_precision
        self._videos: list[str] = []
        self._num_pixels = 0

    def reset(self) -> None:
        """Forget all outputs, and read the labels if that has not been done yet.

        Raises:
            ValueError: if the labels cannot be scored, or a frame has no video.
        """
        super().reset()
        if self._videos:
            return
        records = DatasetCatalog.get(self._scored_name)
        for record in records:
            if "video_id" not in record:
                raise ValueError(
                    f"image {record['image_id']!r} of dataset {self._scored_name!r} has no "
                    "video_id; moving objects are scored video by video"
                )
        self._videos = [str(record["video_id"]) for record in records]
        self._num_pixels = sum(record["height"] * record["width"] for record in records)

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of all frames.
            detections: detections on them.

        Returns:
            In percent: ``precision``, ``recall``, ``F1``, means over the videos, and
            ``F1-<video>`` by the first protocol; ``precision_<protocol>`` ... ``F1_<protocol>`` by
            the others; ``mAP_<protocol>`` where asked for; ``AP``, ``AP50``, ``AP75`` and
            ``AR_<number>``; the protocols with every count.
        """
        result: OrderedDict[str, float] = OrderedDict()
        described = []
        for number, protocol in enumerate(self._protocols):
            scores = score_moving_objects(truth, detections, self._videos, protocol)
            suffix = f"_{protocol.name}" if number else ""
            means = 100 * scores.means()[scores.best()]
            result.update({f"{k}{suffix}": float(v) for k, v in zip(_RATES, means)})
            if scores.average_precision is not None:
                result[f"mAP_{protocol.name}"] = mean_percent(scores.average_precision)
            if not number:
                f1 = 100 * scores.rates()[scores.best(), :, 2]
                result.update({f"F1-{v}": float(x) for v, x in zip(scores.videos, f1)})
            described.append(self._describe(scores))
            _logger.info("Protocol %s:\n%s", protocol.name, _table(scores))

        record = {
            "name": "moving objects in video",
            "headline": self._protocols[0].name,
            "protocols": described,
        }

        if self._average_precision:
            most = self.max_detections
            precision, recall = score_coco(truth, detections, _ALL_AREAS, (most,))
            rows = (("AP", precision), ("AP50", precision[:1]), ("AP75", precision[5:6]))
            result.update({name: mean_percent(values) for name, values in rows})
            result[f"AR_{most}"] = mean_percent(recall)
            record["average_precision"] = {
                "matching": f"faster-coco-eval {faster_coco_eval.__version__}",
                "iou_rule": "IoU >= t, t = 0.50:0.05:0.95",
                "ap_method": "101 recall points",
                "max_detections_per_image_and_class": most,
            }
        return Evaluation(result, record, count_objects(truth.ignore))

    def _describe(self, scores: MovingObjectScores) -> dict:
        """All that a reader needs to compute the numbers again."""
        protocol = scores.protocol
        rule = "IoU > t" if protocol.rule == "iou" else "distance of the centres < t px"
        sweep = []
        for s, threshold in enumerate(protocol.score_thresholds):
            pooled = scores.counts[s].sum(axis=0)
            sweep.append(
                {
                    "score_above": threshold,
                    "mean": _percent(scores.means()[s]),
                    "pooled": _percent(scores.pooled()[s]),
                    "counts_true_false_missed": pooled.tolist(),
                    "false_alarms_per_pixel": float(pooled[1] / max(self._num_pixels, 1)),
                    "videos": {
                        name: {
                            **_percent(scores.rates()[s, v]),
                            "counts_true_false_missed": scores.counts[s, v].tolist(),
                        }
                        for v, name in enumerate(scores.videos)
                    },
                }
            )
        described = {
            "name": protocol.name,
            "rule": rule,
            "t": protocol.threshold,
            "matching": "best assignment of each frame and class",
            "labels_of_published_numbers": protocol.labels,
            "mean": "unweighted, over the videos with objects",
            "reported_score_above": protocol.score_thresholds[scores.best()],
            "by_score": sweep,
        }
        if scores.average_precision is not None:
            values = 100 * scores.average_precision
            described["average_precision"] = {
                "matching": "greedy by score, IoU > t; area under the curve of each video",
                "videos": dict(zip(scores.videos, values.tolist())),
            }
        return described


def _percent(rates: np.ndarray) -> dict[str, float]:
    return {name: float(100 * value) for name, value in zip(_RATES, rates)}


def _table(scores: MovingObjectScores) -> str:
    """Every video and the mean, at the score threshold that is reported."""
    best = scores.best()
    rates, counts = 100 * scores.rates()[best], scores.counts[best]
    rows = [[name, *counts[v], *rates[v]] for v, name in enumerate(scores.videos)]
    rows.append(["mean", *counts.sum(axis=0), *(100 * scores.means()[best])])
    rows.append(["pooled", *counts.sum(axis=0), *(100 * scores.pooled()[best])])
    title = (
        f"{scores.protocol.rule} {scores.protocol.threshold:g}, score > "
        f"{scores.protocol.score_thresholds[best]:g}"
    )
    headers = [title, "true", "false", "missed", *_RATES]
    return tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe")
