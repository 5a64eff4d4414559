"""What the evaluators of upright boxes share: gathering, merging of windows, records on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import detectron2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from rsd2.io.files import write_atomically

from .box_records import BoxMerging, BoxRecord, assemble_boxes, make_box_record
from .dota_report import to_json, versions
from .files.coco_results import read_coco_results, to_coco_results
from .matching.boxes import BoxDetections, BoxTruth

_logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"


class BoxEvaluator(DatasetEvaluator):
    """Collects outputs, brings those of windows back to whole images, and has them scored.

    The ground truth is that of ``MetadataCatalog.get(dataset_name).source_dataset`` if there is
    one, else of the data set itself; if those dicts are windows themselves, windows are scored one
    by one, with a warning. Works over any number of processes; the main one returns the result.
    """

    metrics_file = "metrics_box.json"

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        merging: BoxMerging | None = None,
        distributed: bool = True,
    ) -> None:
        """Note what to evaluate; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered data set that the model is run on, windows or whole images.
            output_dir: gets the metrics with their protocol and ``coco_instances_results.json``
                (detections on whole images, with the ids of the annotation file); created if
                absent. None writes nothing.
            merging: of windows; TinyBenchmark's rule if None.
            distributed: gather the outputs of all processes; False scores those of this one.
        """
        self._dataset_name = dataset_name
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._merging = BoxMerging() if merging is None else merging
        self._distributed = distributed
        self._records: list[BoxRecord] = []
        self._truth: BoxTruth | None = None

    @abstractmethod
    def score(
        self, truth: BoxTruth, detections: BoxDetections
    ) -> tuple[OrderedDict[str, float], dict]:
        """Score the detections.

        Args:
            truth: whole images.
            detections: on them.

        Returns:
            (percentages by name, protocol ready for JSON).
        """

    def reset(self) -> None:
        """Forget all outputs, and read the labels if that has not been done yet.

        Raises:
            ValueError: if the labels cannot be scored, see :meth:`BoxTruth.from_dicts`.
        """
        self._records = []
        if self._truth is not None:
            return
        metadata = MetadataCatalog.get(self._dataset_name)
        self._scored_name = metadata.get("source_dataset") or self._dataset_name
        dicts = DatasetCatalog.get(self._scored_name)
        self._scores_windows = any(record.get("tile") for record in dicts)
        self._truth = BoxTruth.from_dicts(dicts, metadata.thing_classes)
        self._image_index = {name: index for index, name in enumerate(self._truth.image_ids)}
        self._json_ids = [record.get("json_id", k + 1) for k, record in enumerate(dicts)]
        if self._scores_windows and comm.is_main_process():
            _logger.warning(
                "Data set %r has labels of windows only, so windows are scored one by one. "
                "TinyPerson's protocol merges them: register the whole images and name them as "
                "source_dataset.",
                self._dataset_name,
            )

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Keep the detections of a batch on the CPU, in pixels of the whole images.

        Args:
            inputs: dataset dicts with ``image_id`` and, for windows, ``tile``.
            outputs: dicts with ``instances``: ``pred_boxes`` (Boxes in pixels of the input's
                ``height`` x ``width``), ``scores`` and ``pred_classes``.

        Raises:
            ValueError: if an image is not one of the data set, a class is out of range or the
                boxes are rotated ones.
        """
        if self._truth is None:
            self.reset()
        for item, output in zip(inputs, outputs):
            image_id, tile = self._locate(item)
            if image_id not in self._image_index:
                raise ValueError(
                    f"image {image_id!r} is not in data set {self._scored_name!r} "
                    f"({len(self._image_index)} images); evaluate the loader of that data set"
                )
            instances = output["instances"]
            boxes, classes = instances.pred_boxes.tensor, instances.pred_classes
            num_classes = len(self._truth.class_names)
            if boxes.shape[1:] != (4,):
                raise ValueError(
                    f"predicted boxes of image {image_id!r} have shape {tuple(boxes.shape)}; this "
                    "evaluator scores upright boxes"
                )
            if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
                raise ValueError(
                    f"predicted classes of image {image_id!r} lie in {int(classes.min())}.."
                    f"{int(classes.max())}, but data set {self._scored_name!r} has {num_classes} "
                    "classes; set the model's num_classes to that"
                )
            floor = self._merging.score_floor
            self._records.append(
                make_box_record(image_id, tile, boxes, instances.scores, classes, floor)
            )

    def process_file(self, path: str | Path, *, on_problem: str = "error") -> None:
        """Take detections from a file in COCO's result format instead of a model.

        Args:
            path: JSON list. Its ``image_id`` are the ids of the annotation file of the data set,
                be they windows or whole images; of virtual windows, those of the whole images. Its
                ``category_id`` are 1, 2, ... in the order of the classes.
            on_problem: ``"error"``, or ``"drop"`` entries of unknown images and the like, with a
                warning that counts them.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be used; the message names file and entries.
        """
        if self._truth is None:
            self.reset()
        dicts = DatasetCatalog.get(self._dataset_name)
        if any(record.get("tile") for record in dicts):
            numbers = [record.get("json_id") for record in dicts]
            if len(set(numbers)) < len(numbers):  # virtual windows share the id of their image
                dicts = DatasetCatalog.get(self._scored_name)
        inputs = {}
        for k, record in enumerate(dicts):
            image_id, tile = self._locate(record)
            names = ("x", "y", "width", "height")
            key = tuple(int(tile[name]) for name in names) if tile else ()
            inputs[record.get("json_id", k + 1)] = (image_id, key)
        classes = {k + 1: k for k in range(len(self._truth.class_names))}
        records, problems = read_coco_results(path, inputs, classes, on_problem=on_problem)
        for kind, number in sorted(problems.items()):
            _logger.warning("%s: %d entries left out: %s", path, number, kind)
        self._records += records

    def evaluate(self) -> dict[str, OrderedDict[str, float]]:
        """Gather, merge and score all outputs; write the results if there is an output folder.

        Returns:
            ``{"bbox": ...}`` in per cent, ``nan`` where undefined, on the main process; ``{}`` on
            the others.
        """
        records = self._records
        if self._distributed:
            comm.synchronize()
            records = list(itertools.chain.from_iterable(comm.gather(records, dst=0)))
            if not comm.is_main_process():
                return {}
        if self._truth is None:
            self.reset()
        truth = self._truth
        detections, counts = assemble_boxes(records, self._image_index, self._merging)
        result, protocol = self.score(truth, detections)
        counts["images"] = len(truth.image_ids)
        counts["images_without_prediction"] = len(truth.image_ids) - counts["images_predicted"]
        self._warn(counts)
        protocol["unit"] = "windows" if self._scores_windows else "whole images"
        protocol["merge_nms_iou_threshold"] = self._merging.nms_threshold
        protocol["merge_legacy_pixels"] = self._merging.legacy_pixels
        protocol["score_floor"] = self._merging.score_floor
        _logger.info("Protocol: %s", to_json({**protocol, "counts": counts}))
        if self._output_dir is not None:
            record = {
                "dataset": {
                    "name": self._dataset_name,
                    "scored_on": self._scored_name,
                    "ground_truth_sha256": _digest(truth),
                },
                "protocol": protocol,
                "counts": counts,
                "results": {"bbox": result},
                "versions": {**versions(), "detectron2": detectron2.__version__},
            }
            self._write(record, detections)
        return {"bbox": result}

    def _locate(self, item: dict) -> tuple[str, dict | None]:
        """Whole image (or scored window) that an input belongs to, and its window if any."""
        tile = item.get("tile")
        if tile and not self._scores_windows:
            return str(tile["source_id"]), tile
        if "image_id" not in item:
            raise ValueError(
                f"a model input has no 'image_id' (keys: {sorted(item)}); use a dataset mapper "
                "that keeps it"
            )
        return str(item["image_id"]), None

    def _warn(self, counts: dict[str, int]) -> None:
        reasons = {
            "images_without_prediction": "images were never predicted, their objects are missed",
            "detections_dropped_not_finite": "detections had NaN or infinite numbers and were "
            "dropped; look for a diverged model",
        }
        for name, reason in reasons.items():
            if counts.get(name):
                _logger.warning("%s: %d %s", self._scored_name, counts[name], reason)

    def _write(self, record: dict, detections: BoxDetections) -> None:
        self._output_dir.mkdir(parents=True, exist_ok=True)
        categories = range(1, len(self._truth.class_names) + 1)
        entries = to_coco_results(detections, self._json_ids, categories)
        write_atomically(self._output_dir / RESULTS_FILE, json.dumps(entries).encode())
        write_atomically(self._output_dir / self.metrics_file, to_json(record).encode())


def _digest(truth: BoxTruth) -> str:
    """SHA-256 of the labels, so that two records can be seen to use the same ones."""
    digest = hashlib.sha256(json.dumps([truth.image_ids, truth.class_names]).encode())
    for name in ("image_index", "class_index", "boxes", "areas", "ignore", "uncertain"):
        digest.update(np.ascontiguousarray(getattr(truth, name)).tobytes())
    return digest.hexdigest()
