"""Score detections against quadrilaterals by DOTA's Task 1 protocol, without Detectron2.

The protocol: the detections of a class are ranked by score; each one takes the ground truth of
its image and class with the greatest polygon IoU; it is true if that IoU is strictly above the
threshold and no earlier detection took the same object, ignored if that object does not count
under the difficulty policy, and false otherwise; then VOC average precision, averaged over the
classes that have ground truth.

Shapes: I images, C classes, G ground-truth objects, D detections, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rsd2.data.dataset_dicts import check_record, polygon_of
from rsd2.data.formats.values import LARGEST_COORDINATE
from rsd2.evaluation.matching.polygons import Regions, best_overlaps
from rsd2.evaluation.matching.serial_torch import serial_torch
from rsd2.structures import boxes_to_corners

from .average_precision import average_precision, check_ap_method, precision_recall

COCO_IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))

# Which difficulty labels count as objects to be found; the others are ignored. DOTA's own labels
# are 0 and 1; 2 marks an object that tiling cut, which no full-image label file contains.
DIFFICULT_POLICIES: dict[str, tuple[int, ...]] = {
    "v1.0": (0,),
    "v1.5": (0, 1),
    "count-all": (0, 1, 2),
}


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a set of full images.

    Attributes:
        image_ids: I names, in the order that breaks ties between equal scores.
        class_names: C names.
        image_index: (G,) int64 indices into ``image_ids``.
        class_index: (G,) int64 indices into ``class_names``.
        polygons: (G, 4, 2) float64 vertices, pixels of the full image.
        difficult: (G,) int64: 0 normal, 1 difficult, 2 cut by tiling.
    """

    image_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    image_index: np.ndarray
    class_index: np.ndarray
    polygons: np.ndarray
    difficult: np.ndarray

    def __post_init__(self) -> None:
        num = len(self.polygons)
        for name in ("image_index", "class_index", "difficult"):
            if len(getattr(self, name)) != num:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {num} objects")

        if len(set(self.image_ids)) != len(self.image_ids):
            twice = sorted({i for i in self.image_ids if self.image_ids.count(i) > 1})[:5]
            raise ValueError(f"image ids must be unique, these are not: {twice}")

        _check_range("class index", self.class_index, len(self.class_names))
        _check_range("image index", self.image_index, len(self.image_ids))
        _check_range("difficulty", self.difficult, 3)

        bad = np.flatnonzero(~(abs(self.polygons) < LARGEST_COORDINATE).all(axis=(1, 2)))
        if len(bad):
            image = self.image_ids[self.image_index[bad[0]]]
            raise ValueError(
                f"{len(bad)} ground-truth polygons are not finite or beyond "
                f"{LARGEST_COORDINATE:g} px, the first in image {image!r}: "
                f"{self.polygons[bad[0]].ravel().tolist()}; correct the labels"
            )

    @classmethod
    def from_dicts(cls, dataset_dicts: Sequence[dict], class_names: Sequence[str]) -> GroundTruth:
        """Collect the objects of Detectron2 dataset dicts.

        Args:
            dataset_dicts: one per image, with ``image_id`` and, unless the labels are hidden,
                ``annotations``: ``category_id``, a place as of `polygon_of`, and optionally
                ``difficult`` (0, 1 or 2; default 0).
            class_names: C names that ``category_id`` indexes.

        Returns:
            The ground truth, images and objects in the order given.

        Raises:
            ValueError: an object has neither polygon nor box, a crowd region, or a
                class or difficulty outside its range.
        """
        image_index, class_index, polygons, difficult = [], [], [], []
        for index, record in enumerate(dataset_dicts):
            check_record(record, "image_id")
            for obj in record.get("annotations", ()):
                if obj.get("iscrowd", 0):
                    raise ValueError(
                        f"image {record['image_id']!r} has a crowd region, which the DOTA protocol "
                        "does not know; mark such objects as difficult (difficult=1) instead"
                    )

                image_index.append(index)
                class_index.append(obj["category_id"])
                polygons.append(polygon_of(obj, record["image_id"]))
                difficult.append(obj.get("difficult", 0))

        return cls(
            image_ids=tuple(str(record["image_id"]) for record in dataset_dicts),
            class_names=tuple(class_names),
            image_index=np.array(image_index, dtype=np.int64),
            class_index=np.array(class_index, dtype=np.int64),
            polygons=np.array(polygons, dtype=np.float64).reshape(-1, 4, 2),
            difficult=np.array(difficult, dtype=np.int64),
        )


@dataclass(frozen=True)
class Detections:
    """Detections on full images; exactly one of ``boxes`` and ``polygons`` is set.

    Attributes:
        image_index: (D,) int64 indices into the ground truth's ``image_ids``.
        class_index: (D,) int64 indices into its ``class_names``.
        scores: (D,) float64, finite. Equal scores rank by image, then by place in these arrays.
        boxes: (D, 5) float64 rotated boxes: cx, cy, w, h in pixels, angle in degrees.
        polygons: (D, V, 2) float64 vertices in pixels.
    """

    image_index: np.ndarray
    class_index: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    polygons: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = [given for given in (self.boxes, self.polygons) if given is not None]
        if len(shapes) != 1:
            raise ValueError("give either boxes or polygons of the detections, not both or none")

        (shape,) = shapes
        lengths = [len(x) for x in (self.image_index, self.class_index, self.scores, shape)]
        if len(set(lengths)) != 1:
            raise ValueError(f"image, class, score and shape arrays differ in length: {lengths}")

        if not (np.isfinite(self.scores).all() and np.isfinite(shape).all()):
            raise ValueError(
                "scores and coordinates must be finite; drop the others with finite_rows first"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def corners(self) -> np.ndarray:
        """Return the vertices (D, V, 2) in pixels, float64; of boxes their four corners."""
        if self.boxes is not None:
            return boxes_to_corners(torch.from_numpy(self.boxes)).numpy()
        if self.polygons is None:
            raise ValueError("the detections have neither boxes nor polygons")
        return self.polygons

    def regions(self) -> Regions:
        """Make the regions for the overlap tests."""
        if self.boxes is not None:
            return Regions.from_boxes(self.boxes)
        return Regions.from_polygons(self.corners())


@dataclass(frozen=True)
class DotaScores:
    """Result of :func:`score_detections`.

    Attributes:
        iou_thresholds: T thresholds.
        ap: (T, C) float64 in [0, 1], ``nan`` for a class without an object that counts.
        recall: (T, C) float64, final recall, ``nan`` likewise.
        num_counted: (C,) objects that count under the policy.
        num_ignored: (C,) objects that do not.
        num_detections: (C,) detections.
        num_repaired: number of repaired self-crossing ground-truth polygons.
        num_degenerate: number of ground-truth polygons without area, which nothing can match.
    """

    iou_thresholds: tuple[float, ...]
    ap: np.ndarray
    recall: np.ndarray
    num_counted: np.ndarray
    num_ignored: np.ndarray
    num_detections: np.ndarray
    num_repaired: int
    num_degenerate: int

    def mean_ap(self) -> np.ndarray:
        """Return the mean AP over the classes that have ground truth, (T,) in [0, 1] or ``nan``."""
        defined = self.num_counted > 0
        if not defined.any():
            return np.full(len(self.iou_thresholds), np.nan)
        return self.ap[:, defined].mean(axis=1)


def finite_rows(scores: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
    """Tell which detections have only finite numbers.

    Args:
        scores: (D,) scores.
        arrays: (D, ...) boxes or polygons.

    Returns:
        (D,) bool.
    """
    keep = np.isfinite(scores)
    for array in arrays:
        keep &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    return keep


def score_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    *,
    iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
    ap_method: str = "voc07",
    difficult_policy: str = "v1.0",
) -> DotaScores:
    """Score detections on full images by the protocol at the top of this module.

    Args:
        ground_truth: objects with their quadrilaterals.
        detections: detections on the same images and classes.
        iou_thresholds: T thresholds in [0, 1); a match needs polygon IoU strictly above.
        ap_method: rule of the average precision, ``"voc07"`` or ``"area"``.
        difficult_policy: difficulty labels that count: ``"v1.0"`` 0 alone, ``"v1.5"`` 0 and 1,
            ``"count-all"`` 0, 1 and 2; an object that does not count is neither found nor missed,
            and detections that match it are ignored.

    Returns:
        AP and recall of every threshold and class, with the counts behind them.

    Raises:
        ValueError: a method or policy is unknown, a threshold is outside its range, or a
            detection's image or class index is out of range.
    """
    thresholds = check_protocol(iou_thresholds, ap_method, difficult_policy)
    num_classes = len(ground_truth.class_names)
    _check_range("image index", detections.image_index, len(ground_truth.image_ids))
    _check_range("class index", detections.class_index, num_classes)
    regions = Regions.from_polygons(ground_truth.polygons)

    with serial_torch():
        best, best_iou = best_overlaps(
            detections.regions(),
            # One group per image and class, so that a detection meets only its own objects.
            detections.image_index * num_classes + detections.class_index,
            regions,
            ground_truth.image_index * num_classes + ground_truth.class_index,
            min_iou=min(thresholds),
        )

    counts = np.isin(ground_truth.difficult, DIFFICULT_POLICIES[difficult_policy])
    ap, recall = score_overlaps(
        ground_truth, detections, (best, best_iou), counts, thresholds, ap_method
    )
    return DotaScores(
        iou_thresholds=thresholds,
        ap=ap,
        recall=recall,
        num_counted=np.bincount(ground_truth.class_index[counts], minlength=num_classes),
        num_ignored=np.bincount(ground_truth.class_index[~counts], minlength=num_classes),
        num_detections=np.bincount(detections.class_index, minlength=num_classes),
        num_repaired=len(regions.repaired),
        num_degenerate=int((regions.areas <= 0).sum()),
    )


def score_overlaps(
    ground_truth: GroundTruth,
    detections: Detections,
    overlaps: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    iou_thresholds: Sequence[float],
    ap_method: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Score detections whose best objects are known.

    Args:
        ground_truth: objects.
        detections: D detections on the same images and classes.
        overlaps: result of `best_overlaps` for them, each within its image and class: (D,) object
            and (D,) IoU.
        counts: (G,) bool, whether an object counts; the others are neither found nor missed.
        iou_thresholds: T thresholds.
        ap_method: rule of the average precision, ``"voc07"`` or ``"area"``.

    Returns:
        AP and final recall, (T, C) each in [0, 1], ``nan`` for a class without object that counts.
    """
    num_classes = len(ground_truth.class_names)
    num_counted = np.bincount(ground_truth.class_index[counts], minlength=num_classes)
    num_detections = np.bincount(detections.class_index, minlength=num_classes)

    # lexsort is stable: equal keys keep the order of the arrays.
    rank = np.lexsort((detections.image_index, -detections.scores, detections.class_index))
    best, best_iou = (values[rank] for values in overlaps)
    ends = np.cumsum(num_detections)
    ap, recall = np.full((2, len(iou_thresholds), num_classes), np.nan)
    for row, threshold in enumerate(iou_thresholds):
        # The best object does not depend on the threshold, so overlaps are computed once.
        is_true, is_false = judge_ranked(best, best_iou > threshold, counts)
        for label in np.flatnonzero(num_counted):
            of_class = slice(ends[label] - num_detections[label], ends[label])
            curve = precision_recall(is_true[of_class], is_false[of_class], num_counted[label])
            ap[row, label] = average_precision(*curve, method=ap_method)
            recall[row, label] = curve[1][-1] if len(curve[1]) else 0.0
    return ap, recall


def check_protocol(
    iou_thresholds: Sequence[float], ap_method: str, difficult_policy: str
) -> tuple[float, ...]:
    """Validate the protocol.

    Args:
        iou_thresholds: see :func:`score_detections`.
        ap_method: see :func:`score_detections`.
        difficult_policy: see :func:`score_detections`.

    Returns:
        The thresholds, in increasing order, each once.

    Raises:
        ValueError: a value is impossible; the message lists the possible ones.
    """
    check_ap_method(ap_method)
    if difficult_policy not in DIFFICULT_POLICIES:
        raise ValueError(
            f"unknown difficult policy {difficult_policy!r}; choose one of "
            f"{', '.join(DIFFICULT_POLICIES)}"
        )

    # Rounded, so that 0.65 made by adding steps of 0.05 is the threshold 0.65.
    thresholds = tuple(sorted({round(float(value), 10) for value in iou_thresholds}))
    if not thresholds or not all(0.0 <= value < 1.0 for value in thresholds):
        raise ValueError(f"IoU thresholds must lie in [0, 1), got {list(iou_thresholds)}")
    return thresholds


def judge_ranked(
    best: np.ndarray, matches: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell true from false positives among ranked detections; the rest is ignored.

    Args:
        best: (D,) object of greatest overlap of each detection, from the best rank to the worst.
        matches: (D,) bool, whether that overlap is a match.
        counts: (G,) bool, whether an object counts; the others are neither found nor missed.

    Returns:
        (D,) bool true positives, (D,) bool false positives.
    """
    (ranked,) = np.nonzero(matches)
    objects = best[ranked]
    first = np.full(len(counts), -1, dtype=np.int64)

    # With repeated indices the last assignment stays, so go from the worst rank to the best.
    first[objects[::-1]] = ranked[::-1]
    is_true = np.zeros(len(best), dtype=bool)
    is_true[ranked] = (first[objects] == ranked) & counts[objects]
    is_false = np.ones(len(best), dtype=bool)
    is_false[ranked] = counts[objects] & ~is_true[ranked]
    return is_true, is_false


def _check_range(what: str, values: np.ndarray, limit: int) -> None:
    bad = (values < 0) | (values >= limit)
    if bad.any():
        raise ValueError(f"{what} {values[bad][0]} is outside 0..{limit - 1}")
