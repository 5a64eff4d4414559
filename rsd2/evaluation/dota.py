"""Detectron2 evaluator of DOTA's Task 1 protocol on merged full images."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from rsd2.io.files import write_atomically

from . import dota_report
from .files.task1 import check_task1_names, write_task1_zip
from .scoring.dota import (
    COCO_IOU_THRESHOLDS,
    DotaScores,
    GroundTruth,
    check_protocol,
    score_detections,
)
from .tile_records import AssembledOutputs, OutputRecord, assemble_outputs, make_record

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics_dota.json"
SUBMISSION_FILE = "Task1.zip"


class DotaEvaluator(DatasetEvaluator):
    """Average precision of rotated boxes as the DOTA server computes it.

    Outputs of tiles are moved to their full image and merged by rotated NMS, then scored against
    the labelled quadrilaterals by :func:`rsd2.evaluation.score_detections` (polygon IoU strictly
    above the threshold, VOC average precision, mean over the classes with ground truth). Outputs
    for whole images are scored as the model gave them: no NMS is applied. Works over any number
    of processes; only the main one returns a result.

    The ground truth is that of ``MetadataCatalog.get(dataset_name).source_dataset`` if there is
    one, else of the dataset itself. If those dicts are themselves tiles (no full-image labels are
    registered), tiles are scored one by one, with a warning: such numbers are not DOTA's.

    Predicted rectangles cannot reach IoU 1 with a quadrilateral that is not one, so a perfect
    detector scores below 100 at high thresholds on hand-drawn labels.
    """

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
    ) -> None:
        """Check the protocol and the output folder; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on, tiles or whole images.
            output_dir: gets ``metrics_dota.json`` (scores, protocol, counts, versions) and
                ``Task1.zip`` for the DOTA server; created if absent. None writes nothing.
            nms_threshold: rotated IoU in [0, 1] above which the tiles' detections of one class
                are duplicates (mmrotate 0.1, DOTA devkit 0.3); None merges without suppression.
                Applied to images predicted in tiles only.
            iou_thresholds: each in [0, 1).
            ap_method: ``"voc07"`` (DOTA) or ``"area"``.
            difficult_policy: labels that count as objects to be found: ``"v1.0"`` difficulty 0
                alone, as the v1.0 devkit; ``"v1.5"`` 0 and 1, as DOTA v1.5 and v2.0;
                ``"count-all"`` also 2, objects cut by tiling. The others are ignored.
            score_floor: detections with a smaller score are dropped; None keeps all.
            max_detections: per full image after merging, > 0; None keeps all.
            train_dataset_names: datasets the model was trained on; images they share with the
                scored one are counted and warned about.
            distributed: gather the outputs of all processes; False scores those of this one.

        Raises:
            ValueError: for an impossible protocol.
            OSError: if the output folder cannot be written.
        """
        self._thresholds = check_protocol(iou_thresholds, ap_method, difficult_policy)
        if nms_threshold is not None and not 0.0 <= nms_threshold <= 1.0:
            raise ValueError(f"nms_threshold must lie in [0, 1] or be None, got {nms_threshold}")
        if max_detections is not None and max_detections < 1:
            raise ValueError(f"max_detections must be positive or None, got {max_detections}")
        self._dataset_name = dataset_name
        self._nms_threshold = nms_threshold
        self._ap_method = ap_method
        self._difficult_policy = difficult_policy
        self._score_floor = score_floor
        self._max_detections = max_detections
        self._train_dataset_names = tuple(train_dataset_names)
        self._distributed = distributed
        self._output_dir = None if output_dir is None else Path(output_dir)
        if self._output_dir is not None and comm.is_main_process():
            _check_writable(self._output_dir)
        self._records: list[OutputRecord] = []
        self._ground_truth: GroundTruth | None = None
        self._image_index: dict[str, int] = {}
        self._scores_tiles = False
        self._scored_name = dataset_name

    def reset(self) -> None:
        """Forget all outputs, and read the labels if that has not been done yet.

        Raises:
            ValueError: if the labels cannot be scored, see :meth:`GroundTruth.from_dicts`.
        """
        self._records = []
        if self._ground_truth is not None:
            return
        metadata = MetadataCatalog.get(self._dataset_name)
        self._scored_name = metadata.get("source_dataset") or self._dataset_name
        dicts = DatasetCatalog.get(self._scored_name)
        classes = MetadataCatalog.get(self._scored_name).get("thing_classes")
        classes = classes or metadata.thing_classes
        self._scores_tiles = any(record.get("tile") for record in dicts)
        self._ground_truth = GroundTruth.from_dicts(dicts, classes)
        self._image_index = {name: index for index, name in enumerate(self._ground_truth.image_ids)}
        if self._scores_tiles and comm.is_main_process():
            logger.warning(
                "Dataset %r has labels of tiles only, so tiles are scored one by one. This is not "
                "the DOTA protocol: register the full images and name them as source_dataset.",
                self._dataset_name,
            )

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Keep the detections of a batch on the CPU, in full-image pixels.

        Args:
            inputs: dataset dicts with ``image_id`` and, for tiles, ``tile``.
            outputs: dicts with ``instances``: ``pred_boxes`` (RotatedBoxes in pixels of the
                input's ``height`` x ``width``), ``scores`` and ``pred_classes``.

        Raises:
            ValueError: if an image is not one of the dataset, a class is out of range or the
                boxes are not rotated ones.
        """
        if self._ground_truth is None:
            self.reset()
        for item, output in zip(inputs, outputs):
            image_id, tile = self._locate(item)
            if image_id not in self._image_index:
                raise ValueError(
                    f"image {image_id!r} is not in dataset {self._scored_name!r} "
                    f"({len(self._image_index)} images); evaluate the loader of that dataset"
                )
            instances = output["instances"]
            boxes, classes = instances.pred_boxes.tensor, instances.pred_classes
            if boxes.shape[1:] != (5,):
                raise ValueError(
                    f"predicted boxes of image {image_id!r} have shape {tuple(boxes.shape)}; the "
                    "DOTA evaluator needs RotatedBoxes, convert with "
                    "rsd2.structures.from_horizontal"
                )
            num_classes = len(self._ground_truth.class_names)
            if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
                raise ValueError(
                    f"predicted classes of image {image_id!r} lie in {int(classes.min())}.."
                    f"{int(classes.max())}, but dataset {self._scored_name!r} has {num_classes} "
                    "classes; set the model's num_classes to that"
                )
            self._records.append(
                make_record(image_id, tile, boxes, instances.scores, classes, self._score_floor)
            )

    def evaluate(self) -> dict[str, OrderedDict[str, float]]:
        """Gather, merge and score all outputs; write the results if there is an output folder.

        Returns:
            ``{"bbox": {"AP", "AP50", "AP75", "AP50-<class>" ...}}`` in percent, ``nan`` where
            undefined, on the main process; ``{}`` on the others.
        """
        records = self._records
        if self._distributed:
            comm.synchronize()
            records = list(itertools.chain.from_iterable(comm.gather(records, dst=0)))
            if not comm.is_main_process():
                return {}
        if self._ground_truth is None:
            self.reset()
        truth = self._ground_truth
        outputs = assemble_outputs(
            records,
            self._image_index,
            nms_threshold=self._nms_threshold,
            max_detections=self._max_detections,
        )
        scores = score_detections(
            truth,
            outputs.detections,
            iou_thresholds=self._thresholds,
            ap_method=self._ap_method,
            difficult_policy=self._difficult_policy,
        )
        result = dota_report.summarize(scores, truth.class_names)
        protocol = self._protocol(scores)
        counts = {
            "images": len(truth.image_ids),
            **outputs.counts,
            **self._count_missing(outputs),
            "objects_that_count": int(scores.num_counted.sum()),
            "objects_ignored": int(scores.num_ignored.sum()),
            "objects_self_crossing_repaired": scores.num_repaired,
            "objects_without_area": scores.num_degenerate,
        }
        self._warn(counts)
        logger.info("Protocol: %s", dota_report.to_json({**protocol, "counts": counts}))
        logger.info("Scores:\n%s", dota_report.format_table(scores, truth.class_names))
        if self._output_dir is not None:
            record = {
                "dataset": {
                    "name": self._dataset_name,
                    "scored_on": self._scored_name,
                    "ground_truth_sha256": dota_report.ground_truth_digest(truth),
                },
                "protocol": protocol,
                "counts": counts,
                "results": {"bbox": result},
                "per_class": dota_report.per_class_record(scores, truth.class_names),
                "versions": {**dota_report.versions(), "detectron2": detectron2.__version__},
            }
            self._write(record, outputs)
        return {"bbox": result}

    def _protocol(self, scores: DotaScores) -> OrderedDict[str, object]:
        return dota_report.describe_protocol(
            scores,
            ap_method=self._ap_method,
            difficult_policy=self._difficult_policy,
            unit="tiles" if self._scores_tiles else "full images",
            merge_nms_iou_threshold=self._nms_threshold,
            merge_nms_applied_to="images predicted in tiles, per class",
            score_floor=self._score_floor,
            max_detections_per_image=self._max_detections,
        )

    def _locate(self, item: dict) -> tuple[str, dict | None]:
        """Full image (or scored tile) that an input belongs to, and its tile record if any."""
        tile = item.get("tile")
        if tile and not self._scores_tiles:
            return str(tile["source_id"]), tile
        if "image_id" not in item:
            raise ValueError(
                f"a model input has no 'image_id' (keys: {sorted(item)}); use a dataset mapper "
                "that keeps it"
            )
        return str(item["image_id"]), None

    def _count_missing(self, outputs: AssembledOutputs) -> dict[str, int]:
        """Count the inputs of the dataset without output, and images shared with training."""
        dicts = DatasetCatalog.get(self._dataset_name)
        expected = set()
        for item in dicts:
            image_id, tile = self._locate(item)
            names = ("x", "y", "width", "height")
            expected.add((image_id, tuple(int(tile[name]) for name in names) if tile else ()))
        predicted = {image_id for image_id, _ in outputs.seen}
        missing = {
            "images_without_prediction": len(set(self._image_index) - predicted),
            "inputs_without_prediction": len(expected - outputs.seen),
        }
        if self._train_dataset_names:
            trained_on = {
                _source_of(item)
                for name in self._train_dataset_names
                for item in DatasetCatalog.get(name)
            }
            missing["images_shared_with_training"] = len(
                trained_on & {_source_of(item) for item in dicts}
            )
        return missing

    def _warn(self, counts: dict[str, int]) -> None:
        reasons = {
            "images_without_prediction": "images have no prediction; all their objects are missed",
            "inputs_without_prediction": "tiles or images of the dataset were never predicted; "
            "was the evaluation interrupted, or run on a subset?",
            "detections_dropped_not_finite": "detections had NaN or infinite numbers and were "
            "dropped; look for a diverged model",
            "images_shared_with_training": "scored images are also in the training set; the "
            "scores say nothing about new images",
            "objects_self_crossing_repaired": "ground-truth polygons cross themselves and were "
            "repaired (the area inside their outline counts)",
            "objects_without_area": "ground-truth polygons have no area; nothing can match them",
        }
        for name, reason in reasons.items():
            if counts.get(name):
                logger.warning("%s: %d %s", self._scored_name, counts[name], reason)
        if not counts["objects_that_count"]:
            logger.warning("%s has no object that counts; all AP are nan", self._scored_name)

    def _write(self, record: dict, outputs: AssembledOutputs) -> None:
        truth = self._ground_truth
        write_atomically(self._output_dir / METRICS_FILE, dota_report.to_json(record).encode())
        try:
            check_task1_names(truth.image_ids, truth.class_names)
        except ValueError as error:
            logger.warning("No %s is written: %s", SUBMISSION_FILE, error)
            return
        path = self._output_dir / SUBMISSION_FILE
        write_task1_zip(path, truth.image_ids, truth.class_names, outputs.detections)
        logger.info("Wrote %s and %s to %s", METRICS_FILE, SUBMISSION_FILE, self._output_dir)


def _source_of(item: dict) -> str:
    """Id of the full image that a dataset dict shows or was cut from."""
    tile = item.get("tile")
    return str(tile["source_id"] if tile else item["image_id"])


def _check_writable(folder: Path) -> None:
    """Create the folder and a file in it, before any work that a failure would lose."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{METRICS_FILE}"
        write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write evaluation results to {folder}: {error}; choose another output_dir"
        ) from error
