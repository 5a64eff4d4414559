"""Base of all evaluators of detections: checks, gathering, merging of windows, files."""

from __future__ import annotations

import itertools
import json
import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import detectron2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from rsd2.io.files import make_output_folder, write_atomically

from . import report
from .files.coco_results import read_coco_results, to_coco_results
from .matching.boxes import BoxDetections, BoxTruth
from .records import BoxMerging, OutputRecord, assemble_outputs, make_record, window_key

_logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"

_WARNINGS = {
    "images_without_prediction": "images were never predicted; all their objects are missed",
    "inputs_without_prediction": "windows or images of the dataset were never predicted; was the "
    "evaluation interrupted, or run on a subset?",
    "detections_dropped_not_finite": "detections had NaN or infinite numbers and were dropped; "
    "look for a diverged model",
    "images_shared_with_training": "scored images are also in the training set; the scores say "
    "nothing about new images",
}


class Evaluation(NamedTuple):
    """Result of an evaluator.

    Attributes:
        result: percentages by name, ``nan`` where undefined.
        protocol: description of how they were computed, ready for JSON.
        counts: ``objects_that_count`` and ``objects_ignored``, and further counts of an evaluator.
        details: further entries of the file of metrics.
    """

    result: OrderedDict[str, float]
    protocol: Mapping[str, Any]
    counts: Mapping[str, int]
    details: Mapping[str, Any] = {}


class DetectionEvaluator(DatasetEvaluator):
    """Collect outputs, move those of windows to whole images, and score them.

    The ground truth is that of ``MetadataCatalog.get(dataset_name).source_dataset`` if there is
    one, else of the dataset itself; if those dicts are windows themselves, windows are scored one
    by one, with a warning. Works over any number of processes; the main one returns the result.
    """

    metrics_file: ClassVar[str]
    """Name of the file of metrics in the output folder."""
    limits_images: ClassVar[bool] = False
    """``max_detections`` limit each merged image; otherwise :meth:`score` defines the unit."""
    warnings: ClassVar[Mapping[str, str]] = _WARNINGS
    """Count that should be 0 -> warning if it is not."""

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        merging: BoxMerging | None = None,
        max_detections: int | None = None,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
        format_only: bool = False,
    ) -> None:
        """Check the output folder and the limit; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on, windows or whole images.
            output_dir: folder for the files; created if absent. None writes nothing.
            merging: rule by which windows are merged, of the kind of boxes that the model gives;
                TinyBenchmark's for upright boxes if None.
            max_detections: greatest number of detections that are scored, of one class in one image
                where the evaluator does not say otherwise, >= 1; None sets no limit.
            train_dataset_names: datasets the model was trained on; images that they share with
                the scored one, by their ids, are counted and warned about.
            distributed: whether to gather the outputs of all processes; False scores those of this
                one.
            format_only: write the detections and score nothing, for images without labels; a
                server may have those.

        Raises:
            ValueError: ``max_detections`` is not positive, or there is no folder to write to.
            OSError: the output folder cannot be written.
        """
        if max_detections is not None and max_detections < 1:
            raise ValueError(f"max_detections must be positive or None, got {max_detections}")

        if format_only and output_dir is None:
            raise ValueError("format_only needs output_dir, the folder of the result files")

        self.format_only = format_only
        self._dataset_name = self._scored_name = dataset_name
        self._output_dir = None if output_dir is None else Path(output_dir)
        self.merging = BoxMerging() if merging is None else merging
        self.max_detections = max_detections
        self._train_dataset_names = tuple(train_dataset_names)
        self._distributed = distributed
        self._records: list[OutputRecord] = []
        self._truth: Any = None

        if self._output_dir is not None and comm.is_main_process():
            _check_writable(self._output_dir, self.metrics_file)

    @abstractmethod
    def read_truth(self, dicts: Sequence[dict], class_names: Sequence[str]) -> Any:
        """Collect the labels.

        Args:
            dicts: dataset dicts of the scored images.
            class_names: names of the classes.

        Returns:
            Labels with ``image_ids`` and ``class_names``.
        """

    @abstractmethod
    def score(self, truth: Any, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of :meth:`read_truth`.
            detections: detections on the same images.

        Returns:
            The scores with their protocol.
        """

    @abstractmethod
    def write_detections(self, folder: Path, detections: BoxDetections) -> None:
        """Write the detections on whole images.

        Args:
            folder: existing folder.
            detections: detections that were scored.
        """

    def reset(self) -> None:
        """Forget all outputs, and read the labels if they have not been read yet.

        Raises:
            ValueError: the labels cannot be scored.
        """
        self._records = []
        if self._truth is not None:
            return

        metadata = MetadataCatalog.get(self._dataset_name)
        self._scored_name = metadata.get("source_dataset") or self._dataset_name
        dicts = DatasetCatalog.get(self._scored_name)

        classes = MetadataCatalog.get(self._scored_name).get("thing_classes")
        self._scores_windows = any(record.get("tile") for record in dicts)
        if self.format_only:
            dicts = [{**record, "annotations": []} for record in dicts]
        self._truth = self.read_truth(dicts, classes or metadata.thing_classes)
        self._image_index = {name: index for index, name in enumerate(self._truth.image_ids)}

        if self._scores_windows and comm.is_main_process():
            _logger.warning(
                "Dataset %r has labels of windows only, so windows are scored one by one. "
                "Published numbers are of whole images: register those and name them as "
                "source_dataset.",
                self._dataset_name,
            )

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Keep the detections of a batch on the CPU, in pixels of the whole images.

        Args:
            inputs: dataset dicts with ``image_id`` and, for windows, ``tile``.
            outputs: dicts with ``instances``: ``pred_boxes`` (Boxes or RotatedBoxes, in pixels of
                the input's ``height`` x ``width``), ``scores`` and ``pred_classes``.

        Raises:
            ValueError: an image is not in the dataset, a class is out of range or the
                boxes are of another kind.
        """
        if self._truth is None:
            self.reset()
        num_classes = len(self._truth.class_names)

        for item, output in zip(inputs, outputs):
            image_id, tile = self._locate(item)
            if image_id not in self._image_index:
                # A wrong loader would score nothing and still print numbers.
                raise ValueError(
                    f"image {image_id!r} is not in dataset {self._scored_name!r} "
                    f"({len(self._image_index)} images); evaluate the loader of that dataset"
                )

            instances = output["instances"]
            boxes, classes = instances.pred_boxes.tensor, instances.pred_classes
            if boxes.shape[1:] != (self.merging.columns,):
                wanted = (
                    "rotated boxes, convert with rsd2.structures.from_horizontal"
                    if self.merging.columns == 5
                    else "upright boxes"
                )
                raise ValueError(
                    f"predicted boxes of image {image_id!r} have shape {tuple(boxes.shape)}; "
                    f"{type(self).__name__} scores {wanted}"
                )

            if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
                raise ValueError(
                    f"predicted classes of image {image_id!r} lie in {int(classes.min())}.."
                    f"{int(classes.max())}, but dataset {self._scored_name!r} has {num_classes} "
                    "classes; set the model's num_classes to that"
                )

            # On the CPU and in numpy from here on: a dataset's outputs would fill the memory of a
            # GPU.
            floor = self.merging.score_floor
            self._records.append(
                make_record(image_id, tile, boxes, instances.scores, classes, floor)
            )

    def evaluate(self) -> dict[str, OrderedDict[str, float]]:
        """Gather, merge and score all outputs; write the results if there is an output folder.

        Returns:
            ``{"bbox": ...}`` in percent, ``nan`` where undefined, on the main process; ``{}`` on
            the others.

        Raises:
            FloatingPointError: no detection at all is finite.
        """
        if self._truth is None:
            self.reset()
        self._refuse_if_nothing_is_finite()

        records = self._records
        # Only the main process goes on: scoring is not parallel.
        if self._distributed:
            comm.synchronize()
            records = list(itertools.chain.from_iterable(comm.gather(records, dst=0)))
            if not comm.is_main_process():
                return {}

        limit = self.max_detections if self.limits_images else None
        outputs = assemble_outputs(records, self._image_index, self.merging, limit)
        counts = {**outputs.counts, **self._count_missing(outputs.seen)}
        return self.finish(outputs.detections, counts)

    def finish(
        self, detections: Any, counts: Mapping[str, int]
    ) -> dict[str, OrderedDict[str, float]]:
        """Score detections on whole images, and write them if there is an output folder.

        Args:
            detections: detections of the kind that :meth:`score` takes.
            counts: counts of where they come from, for the record.

        Returns:
            ``{"bbox": ...}`` in percent; ``{}`` with ``format_only``.
        """
        if self.format_only and self._output_dir is not None:
            self._warn_of(counts)
            make_output_folder(self._output_dir)
            self.write_detections(self._output_dir, detections)
            number = len(self._truth.image_ids)
            _logger.info("Wrote the detections in %d images to %s", number, self._output_dir)
            return {}

        evaluation = self.score(self._truth, detections)
        counts = {"images": len(self._truth.image_ids), **counts, **evaluation.counts}
        self._warn_of(counts)

        if not counts["objects_that_count"]:
            _logger.warning("%s has no object that counts; all AP are nan", self._scored_name)
        protocol = {
            **evaluation.protocol,
            "unit": "windows" if self._scores_windows else "whole images",
            "merge_nms_iou_threshold": self.merging.nms_threshold,
            "merge_nms_applied_to": "images predicted in windows, per class",
            "merge_legacy_pixels": self.merging.legacy_pixels,
            "score_floor": self.merging.score_floor,
        }
        _logger.info("Protocol: %s", report.to_json({**protocol, "counts": counts}))
        if self._output_dir is not None:
            record = {
                "dataset": {
                    "name": self._dataset_name,
                    "scored_on": self._scored_name,
                    "ground_truth_sha256": report.ground_truth_digest(self._truth),
                },
                "protocol": protocol,
                "counts": counts,
                "results": {"bbox": evaluation.result},
                **evaluation.details,
                "versions": {**report.versions(), "detectron2": detectron2.__version__},
            }

            # Again, because a long evaluation may have lost the folder since its check.
            make_output_folder(self._output_dir)
            self.write_detections(self._output_dir, detections)
            write_atomically(self._output_dir / self.metrics_file, report.to_json(record))
            _logger.info("Wrote %s to %s", self.metrics_file, self._output_dir)
        return {"bbox": evaluation.result}

    def _warn_of(self, counts: Mapping[str, int]) -> None:
        """Log what should not have happened, like images that were never predicted."""
        for name, reason in self.warnings.items():
            if counts.get(name):
                _logger.warning("%s: %d %s", self._scored_name, counts[name], reason)

    def _refuse_if_nothing_is_finite(self) -> None:
        """Raise on every process if nothing is finite, so that none waits for the others."""
        num_predicted = sum(record.num_predicted for record in self._records)
        num_broken = sum(record.num_not_finite for record in self._records)
        if self._distributed:
            sums = comm.all_gather((num_predicted, num_broken))
            num_predicted, num_broken = (sum(column) for column in zip(*sums))

        if num_predicted and num_broken == num_predicted:
            raise FloatingPointError(
                f"all {num_predicted} detections on {self._dataset_name!r} have NaN or infinite "
                "numbers: are these the right weights?"
            )

    def _locate(self, item: dict) -> tuple[str, dict | None]:
        """Return the whole image (or scored window) of an input, and its window if any."""
        tile = item.get("tile")
        if tile and not self._scores_windows:
            return str(tile["source_id"]), tile

        if "image_id" not in item:
            raise ValueError(
                f"a model input has no 'image_id' (keys: {sorted(item)}); use a dataset mapper "
                "that keeps it"
            )
        return str(item["image_id"]), None

    def _count_missing(self, seen: frozenset) -> dict[str, int]:
        """Count the inputs of the dataset without output, and images shared with training."""
        dicts = DatasetCatalog.get(self._dataset_name)
        located = (self._locate(item) for item in dicts)
        expected = {(image_id, window_key(tile)) for image_id, tile in located}
        predicted = {image_id for image_id, _ in seen}

        # A file may hold detections on whole images although the dataset has windows.
        whole = {image_id for image_id, window in seen if not window}
        missing = expected - seen
        counts = {
            "images_without_prediction": len(set(self._image_index) - predicted),
            "inputs_without_prediction": sum(image_id not in whole for image_id, _ in missing),
        }

        if self._train_dataset_names:
            trained_on = {
                _source_of(item)
                for name in self._train_dataset_names
                for item in DatasetCatalog.get(name)
            }
            shared = trained_on & {_source_of(item) for item in dicts}
            counts["images_shared_with_training"] = len(shared)

        return counts


class BoxEvaluator(DetectionEvaluator):
    """Base of the evaluators of upright boxes, which read and write COCO's result format.

    The output folder also gets ``coco_instances_results.json``: the detections on whole images,
    with the ids of the annotation file.
    """

    metrics_file = "metrics_box.json"

    def read_truth(self, dicts: Sequence[dict], class_names: Sequence[str]) -> BoxTruth:
        """Collect the labels, see :meth:`BoxTruth.from_dicts`."""
        self._json_ids = [record.get("json_id", k + 1) for k, record in enumerate(dicts)]
        return BoxTruth.from_dicts(dicts, class_names)

    def process_file(self, path: str | Path, *, on_problem: str = "error") -> None:
        """Read detections from a file in COCO's result format instead of a model.

        Args:
            path: path of a JSON list. Its ``image_id`` are the ids of the annotation file of the
                dataset, windows or whole images; for virtual windows, those of the whole images.
                Its ``category_id`` are the metadata's ``category_ids``, one for each class; where
                there are none, 1, 2, ... in the order of the classes.
            on_problem: ``"error"``, or ``"drop"`` entries of unknown images and the like, with a
                warning that counts them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file cannot be used; the message names file and entries.
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
            inputs[record.get("json_id", k + 1)] = (image_id, window_key(tile))
        classes: dict[int | str, int] = {n: k for k, n in enumerate(self._category_ids())}
        records, problems = read_coco_results(path, inputs, classes, on_problem=on_problem)

        for kind, number in sorted(problems.items()):
            _logger.warning("%s: %d entries left out: %s", path, number, kind)
        self._records += records

    def read_detections(self, path: str | Path) -> tuple[BoxTruth, BoxDetections]:
        """Read a file as :meth:`process_file` does, to score it in other ways than as a whole.

        Args:
            path: path of the file.

        Returns:
            The labels of the dataset, and the detections on its whole images.
        """
        self.reset()
        self.process_file(path)
        limit = self.max_detections if self.limits_images else None
        outputs = assemble_outputs(self._records, self._image_index, self.merging, limit)
        return self._truth, outputs.detections

    def write_detections(self, folder: Path, detections: BoxDetections) -> None:
        """Write the detections in COCO's result format."""
        entries = to_coco_results(detections, self._json_ids, self._category_ids())
        write_atomically(folder / RESULTS_FILE, json.dumps(entries))

    def _category_ids(self) -> Sequence[int]:
        """Return the number of each class in result files."""
        known = MetadataCatalog.get(self._scored_name).get("category_ids")
        return known or range(1, len(self._truth.class_names) + 1)


def count_objects(ignored: np.ndarray) -> dict[str, int]:
    """Count the objects of a protocol.

    Args:
        ignored: (G,) bool, which objects need not be found.

    Returns:
        Counts for `Evaluation`.
    """
    num_ignored = int(ignored.sum())
    return {"objects_that_count": len(ignored) - num_ignored, "objects_ignored": num_ignored}


def _source_of(item: dict) -> str:
    """Return the id of the whole image that a dataset dict shows or was cut from."""
    tile = item.get("tile")
    return str(tile["source_id"] if tile else item["image_id"])


def _check_writable(folder: Path, name: str) -> None:
    """Create the folder and a file in it, before a failure could lose any work."""
    try:
        make_output_folder(folder)
        probe = folder / f".{name}"
        write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write evaluation results to {folder}: {error}; choose another output_dir"
        ) from error
