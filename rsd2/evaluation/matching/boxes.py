"""Greedy matching of upright boxes for all images at once, in numpy, with regions to ignore.

COCO lets detections choose in decreasing score; each takes the free object with the greatest IoU.
Because every object prefers the same order of detections, that is the one stable matching, and
deferred acceptance finds it in a few rounds over all images, each a handful of array operations.

Shapes: G ground-truth objects, D detections, P pairs that overlap. Boxes are x0, y0, x1, y1 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rsd2.data.dataset_dicts import check_record

_MAX_PAIRS = 2_000_000
_ALMOST_ONE = 1 - 1e-10


@dataclass(frozen=True)
class BoxTruth:
    """Ground truth of a dataset.

    Attributes:
        image_ids: ids of all images, those without objects too.
        class_names: names of the classes.
        image_index: (G,) int64 indices into ``image_ids``.
        class_index: (G,) int64 indices into ``class_names``.
        boxes: (G, 4) float64.
        areas: (G,) float64 square pixels as annotated, which define the size.
        ignore: (G,) bool, marks regions in which detections do not count, and crowds.
        uncertain: (G,) bool, marks objects whose label is uncertain.
    """

    image_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    image_index: np.ndarray
    class_index: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignore: np.ndarray
    uncertain: np.ndarray

    @classmethod
    def from_dicts(cls, records: Sequence[dict], class_names: Sequence[str]) -> BoxTruth:
        """Collect the annotations of dataset dicts.

        Args:
            records: dataset dicts as those of ``rsd2.data.datasets.load_coco_boxes``.
            class_names: names of the category ids.

        Returns:
            Ground truth in the order of the dicts.

        Raises:
            ValueError: image ids repeat, or an image has no ``annotations``.
        """
        for record in records:
            check_record(record, "image_id")
        ids = tuple(str(record["image_id"]) for record in records)
        if len(set(ids)) < len(ids):
            raise ValueError("image ids of the dataset repeat; give every image one of its own")

        rows, numbers = [], []
        for number, record in enumerate(records):
            if "annotations" not in record:
                raise ValueError(f"image {ids[number]!r} has no annotations; it cannot be scored")
            rows += record["annotations"]
            numbers += [number] * len(record["annotations"])

        boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        crowd = [row.get("ignore", False) or bool(row.get("iscrowd", 0)) for row in rows]

        return cls(
            image_ids=ids,
            class_names=tuple(class_names),
            image_index=np.array(numbers, dtype=np.int64),
            class_index=np.array([row["category_id"] for row in rows], dtype=np.int64),
            boxes=boxes,
            areas=np.array(
                [row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows], dtype=np.float64
            ),
            ignore=np.array(crowd, dtype=bool),
            uncertain=np.array([row.get("uncertain", False) for row in rows], dtype=bool),
        )

    def draw(self, images: np.ndarray) -> BoxTruth:
        """Take some images, some of them repeatedly.

        Args:
            images: (K,) indices into ``image_ids``.

        Returns:
            Labels of K images; those of an image that was drawn twice occur twice.
        """
        rows, image_index = _rows_of_images(self.image_index, images)
        return BoxTruth(
            image_ids=tuple(self.image_ids[image] for image in images),
            class_names=self.class_names,
            image_index=image_index,
            class_index=self.class_index[rows],
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            ignore=self.ignore[rows],
            uncertain=self.uncertain[rows],
        )


class BoxDetections(NamedTuple):
    """Detections on the images of a dataset.

    Attributes:
        image_index: (D,) int64 indices into the ground truth's ``image_ids``.
        class_index: (D,) int64 indices into its ``class_names``.
        scores: (D,) float64, finite. Equal scores rank by image, then by place in these arrays.
        boxes: (D, 4) float64, finite.
    """

    image_index: np.ndarray
    class_index: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    def select(self, rows: np.ndarray) -> BoxDetections:
        """Take some detections.

        Args:
            rows: indices or mask.

        Returns:
            The chosen detections.
        """
        return BoxDetections(*(values[rows] for values in self))

    def draw(self, images: np.ndarray) -> BoxDetections:
        """Take the detections on some images, see `BoxTruth.draw`."""
        rows, image_index = _rows_of_images(self.image_index, images)
        return self.select(rows)._replace(image_index=image_index)

    def areas(self) -> np.ndarray:
        """Return the areas of the boxes.

        Returns:
            (D,) float64 square pixels, 0 for boxes with a side that is not positive.
        """
        return box_areas(self.boxes)


class OverlapPairs(NamedTuple):
    """Pairs of a detection and an object of the same image and class, best object first.

    Attributes:
        detection: (P,) int64, non-decreasing.
        truth: (P,) int64; of one detection in decreasing IoU, of equal ones the later object first.
        iou: (P,) float64, intersection over union.
        iod: (P,) float64, intersection over the area of the detection; never below ``iou``.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    iod: np.ndarray


class Matching(NamedTuple):
    """Outcome of every detection.

    Attributes:
        truth: (D,) int64, object that it found, or -1.
        ignored: (D,) bool, marks detections that found none but lie in a region to ignore.
        iou: (D,) float64 IoU with the object that it found, else 0.
    """

    truth: np.ndarray
    ignored: np.ndarray
    iou: np.ndarray


def _rows_of_images(image_index: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of each drawn image, and the places of their images among the drawn ones."""
    order = np.argsort(image_index, kind="stable")
    ranked = image_index[order]
    first, behind = np.searchsorted(ranked, images), np.searchsorted(ranked, images, "right")
    rows = [order[start:end] for start, end in zip(first, behind)]
    return np.concatenate(rows), np.repeat(np.arange(len(images)), behind - first)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of boxes.

    Args:
        boxes: (N, 4) boxes.

    Returns:
        (N,) float64, 0 where a side is not positive.
    """
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def rank_detections(detections: BoxDetections, max_detections: int | None) -> BoxDetections:
    """Sort detections by image, class and decreasing score, and keep the best of each.

    Args:
        detections: detections in any order.
        max_detections: most detections of one class in one image, >= 1; None keeps all.

    Returns:
        Detections; of equal scores the earlier one comes first.
    """
    order = np.lexsort((-detections.scores, detections.class_index, detections.image_index))
    ranked = detections.select(order)
    if max_detections is None or not len(order):
        return ranked

    # Rows are sorted, so a group starts where image or class changes.
    keys = np.stack([ranked.image_index, ranked.class_index], axis=1)
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    rank = np.arange(len(order)) - starts[np.cumsum(is_first) - 1]
    return ranked.select(rank < max_detections)


def find_overlaps(truth: BoxTruth, detections: BoxDetections, least: float) -> OverlapPairs:
    """Find the pairs that any later matching can use.

    Args:
        truth: labels of the dataset.
        detections: result of ``rank_detections``.
        least: smallest threshold of IoU or IoD of any later matching, > 0.

    Returns:
        Pairs with IoD >= ``least``, which include those with such an IoU.
    """
    # One integer per image and class makes both lists comparable in one sorted search.
    num_classes = max(len(truth.class_names), 1)
    truth_keys = truth.image_index * num_classes + truth.class_index
    keys = detections.image_index * num_classes + detections.class_index
    order = np.argsort(truth_keys, kind="stable")
    starts = np.searchsorted(truth_keys[order], keys, side="left")
    counts = np.searchsorted(truth_keys[order], keys, side="right") - starts

    # In portions, so that a crowded dataset does not hold all its pairs at once.
    areas, truth_areas = detections.areas(), box_areas(truth.boxes)
    parts = []
    bounds = np.searchsorted(np.cumsum(counts), np.arange(0, counts.sum() + 1, _MAX_PAIRS))
    for low, high in zip(bounds, [*bounds[1:], len(keys)]):
        detection = np.repeat(np.arange(low, high), counts[low:high])
        before = np.cumsum(counts[low:high]) - counts[low:high]
        offset = np.arange(len(detection)) - np.repeat(before, counts[low:high])
        found = order[starts[detection] + offset]

        corners, others = detections.boxes[detection], truth.boxes[found]
        sides = np.minimum(corners[:, 2:], others[:, 2:]) - np.maximum(
            corners[:, :2], others[:, :2]
        )
        shared = np.clip(sides, 0, None).prod(axis=1)
        # IoD is never below IoU, so this keeps every pair that either threshold could accept.
        kept = (shared > 0) & (shared >= least * areas[detection])

        detection, found, shared = detection[kept], found[kept], shared[kept]
        union = areas[detection] + truth_areas[found] - shared
        parts.append((detection, found, shared / union, shared / areas[detection]))

    detection, found, iou, iod = (np.concatenate(column) for column in zip(*parts))
    # Of equal IoU the later object comes first, as in COCO's loop, which replaces on equality.
    best_first = np.lexsort((-found, -iou, detection))
    return OverlapPairs(*(column[best_first] for column in (detection, found, iou, iod)))


def match_greedily(
    pairs: OverlapPairs,
    num_detections: int,
    truth_ignored: np.ndarray,
    iou_threshold: float,
    iod_threshold: float | None,
) -> Matching:
    """Match all images at one threshold, as COCO and TinyPerson do.

    In decreasing score each detection takes the free object, not to be ignored, with the greatest
    IoU >= the threshold. Of those that find none, some are ignored: with an ``iod_threshold``, any
    number may lie in the same region, by that share of their own area; without, each takes a free
    region of IoU >= ``iou_threshold`` of its own.

    Args:
        pairs: result of ``find_overlaps``.
        num_detections: D, ranked within each image and class.
        truth_ignored: (G,) bool, marks regions to ignore.
        iou_threshold: smallest IoU of a match, in (0, 1].
        iod_threshold: smallest IoD with a region, in (0, 1], or None.

    Returns:
        The matching.
    """
    in_region = truth_ignored[pairs.truth]
    # COCO caps the threshold just below 1, so that equal boxes match despite rounding.
    close = pairs.iou >= min(iou_threshold, _ALMOST_ONE)
    num_truth = len(truth_ignored)

    found = _accept_rows(pairs, close & ~in_region, num_detections, num_truth)
    ignored = np.zeros(num_detections, dtype=bool)

    if iod_threshold is not None:
        # A region takes any number of detections, an object only one.
        ignored[pairs.detection[in_region & (pairs.iod >= iod_threshold)]] = True
    else:
        rows = close & in_region & (found[pairs.detection] < 0)
        ignored = _accept_rows(pairs, rows, num_detections, num_truth) >= 0

    ignored &= found < 0
    overlap = np.zeros(num_detections)
    of_match = pairs.truth == found[pairs.detection]
    overlap[pairs.detection[of_match]] = pairs.iou[of_match]
    return Matching(found, ignored, overlap)


def _accept_rows(
    pairs: OverlapPairs, rows: np.ndarray, num_detections: int, num_truth: int
) -> np.ndarray:
    return defer_acceptance(pairs.detection[rows], pairs.truth[rows], num_detections, num_truth)


def defer_acceptance(
    detection: np.ndarray, truth: np.ndarray, num_detections: int, num_truth: int
) -> np.ndarray:
    """Let detections choose one after the other among the objects that are still free.

    Args:
        detection: (P,) int64, non-decreasing; of one image, lower ones choose first.
        truth: (P,) int64, object that each may choose; of one detection the best match first.
        num_detections: D, number of detections.
        num_truth: G, number of objects.

    Returns:
        (D,) int64, the object of each detection, or -1.
    """
    counts = np.bincount(detection, minlength=num_detections)
    ends = np.cumsum(counts)
    choice = ends - counts
    holder = np.full(num_truth, num_detections)
    asking = np.flatnonzero(counts)

    # In every round all detections without an object ask at once; the best-ranked asker of an
    # object holds it until a better one comes, and a refused asker turns to its next choice.
    while len(asking):
        wanted = truth[choice[asking]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, asking)
        won = holder[wanted] == asking
        turned_out = before[won & (before < num_detections)]
        refused = np.concatenate([asking[~won], turned_out])
        choice[refused] += 1
        asking = refused[choice[refused] < ends[refused]]

    found = np.full(num_detections, -1)
    taken = np.flatnonzero(holder < num_detections)
    found[holder[taken]] = taken
    return found
