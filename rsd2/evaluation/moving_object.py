"""Detectron2 evaluator of moving objects in satellite video."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .files.mat_results import Frame, read_mat_results, write_mat_results
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
    the protocols beside the numbers say which one applies.
    """

    metrics_file = "metrics_moving_objects.json"
    max_detections: int
    """Those of the AP, which no protocol leaves open."""

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
        format_only: bool = False,
        mat_results: bool = False,
    ) -> None:
        """Check the protocols; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on, with ``video_id``.
            output_dir: folder for ``metrics_moving_objects.json`` and
                ``coco_instances_results.json``.
            protocols: names from `MOVING_OBJECT_PROTOCOLS` or own protocols; the first is the
                headline.
            average_precision: whether to compute COCO's AP too.
            max_detections: most detections of one class in one frame that the AP sees; 100
                in published numbers, which is fewer than the objects in some frames of RsCarData.
            train_dataset_names: datasets the model was trained on.
            distributed: whether to gather the outputs of all processes.
            format_only: write the detections and score nothing.
            mat_results: also write ``mat/<video>/<frame>.mat``, see
                `rsd2.evaluation.files.mat_results`, for the released programs' scoring.

        Raises:
            ValueError: a protocol is unknown, two have one name, or a number is impossible.
            OSError: the output folder cannot be written.
        """
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
            format_only=format_only,
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
        self._mat_results = mat_results
        self._videos: dict[str, str] = {}
        self._frames: list[Frame] = []
        self._num_pixels = 0

    def reset(self) -> None:
        """Forget all outputs, and read the labels if they have not been read yet.

        Raises:
            ValueError: the labels cannot be scored, or a frame has no video.
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

        self._videos = {str(record["image_id"]): str(record["video_id"]) for record in records}
        files = [Path(record["file_name"]).stem for record in records]
        self._frames = list(zip(self._videos.values(), files))
        self._num_pixels = sum(record["height"] * record["width"] for record in records)

    def process_file(self, path: str | Path, *, on_problem: str = "error") -> None:
        """Read detections from files: COCO's result format, or a folder of MATLAB files.

        Args:
            path: path of a JSON list, see `BoxEvaluator.process_file`, or of a folder with
                ``<video>/<frame>.mat``, see `rsd2.evaluation.files.mat_results`.
            on_problem: rule for wrong entries of the JSON list.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file cannot be used, or the dataset has several classes.
        """
        if not Path(path).is_dir():
            super().process_file(path, on_problem=on_problem)
            return

        if not self._videos:
            self.reset()
        self._check_one_class()
        self._records += read_mat_results(path, dict(zip(self._frames, self._truth.image_ids)))

    def write_detections(self, folder: Path, detections: BoxDetections) -> None:
        """Write COCO's result format, and the MATLAB files if they are asked for."""
        super().write_detections(folder, detections)
        if self._mat_results:
            self._check_one_class()
            write_mat_results(folder / "mat", self._frames, detections)

    def _check_one_class(self) -> None:
        if len(self._truth.class_names) > 1:
            raise ValueError(
                f"the MATLAB files of the released programs hold one class, {self._scored_name!r} "
                f"has {len(self._truth.class_names)}; use COCO's result format"
            )

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of all frames.
            detections: detections on them.

        Returns:
            In percent: ``precision``, ``recall``, ``F1``, means over the videos, and
            ``F1-<video>`` by the first protocol; ``precision_<protocol>`` ... ``F1_<protocol>`` by
            the others; ``mAP_<protocol>`` where requested; ``AP``, ``AP50``, ``AP75`` and
            ``AR_<number>``; the protocols with every count.
        """
        result: OrderedDict[str, float] = OrderedDict()
        # The labels need not be all frames: intervals draw some of them repeatedly.
        videos = [self._videos[image_id] for image_id in truth.image_ids]
        described = []
        for number, protocol in enumerate(self._protocols):
            scores = score_moving_objects(truth, detections, videos, protocol)
            # The first protocol is the headline and keeps the plain names.
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

        record: dict[str, Any] = {
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
        """Describe all that a reader needs to compute the numbers again."""
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
    """Format a table of every video and the mean, at the reported score threshold."""
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
