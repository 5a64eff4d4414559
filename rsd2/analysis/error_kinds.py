"""Kinds of errors of a detector, and the average precision that each kind costs.

Source: the idea of Bolya et al., "TIDE", ECCV 2020: correct one kind of error, score again, and the
gain is what the kind costs. Here a wrong place has four parts, because a rotated box has them.

Shapes: G ground-truth objects, D detections, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rsd2.evaluation.matching.polygons import Regions, best_overlaps, paired_iou
from rsd2.evaluation.matching.serial_torch import serial_torch
from rsd2.evaluation.scoring.dota import (
    DIFFICULT_POLICIES,
    Detections,
    GroundTruth,
    check_protocol,
    judge_ranked,
    score_overlaps,
)
from rsd2.structures import boxes_to_corners, corners_to_boxes

BOX_PARTS = ("center", "size", "aspect", "angle")
"""Parts of a box that `replace_part` replaces; aspect and size leave each other as they are."""
FALSE_KINDS = ("duplicate", "class", *BOX_PARTS, "class and box", "background")
"""Kinds of false detections; `Judgement.kind` holds indices into it."""
CORRECTIONS = {
    "class": "class of the object",
    "center": "centre of the object",
    "size": "area of the object",
    "aspect": "aspect of the object",
    "angle": "angle of the object",
    "whole box": "box of the object",
    "class and box": "class and box",
    "duplicate": "is removed",
    "background": "is removed",
    "missed": "is not looked for",
}
"""Kind of error -> what its correction gives a false detection, or does with it or the object."""


@dataclass(frozen=True)
class ErrorProtocol:
    """Rules by which detections are true or false, those of `score_detections` at one threshold.

    Attributes:
        iou_threshold: polygon IoU above which a detection has found an object, in (0, 1).
        touch_iou: IoU above which a false detection is about an object, in [0, iou_threshold).
        ap_method: ``"voc07"`` or ``"area"``.
        difficult_policy: which objects count, a key of `DIFFICULT_POLICIES`.

    Raises:
        ValueError: a rule is impossible.
    """

    iou_threshold: float = 0.5
    touch_iou: float = 0.1
    ap_method: str = "voc07"
    difficult_policy: str = "v1.0"

    def __post_init__(self) -> None:
        check_protocol((self.iou_threshold,), self.ap_method, self.difficult_policy)
        if not 0 <= self.touch_iou < self.iou_threshold:
            raise ValueError(
                f"touch_iou must lie in [0, {self.iou_threshold}), got {self.touch_iou}"
            )

    def counted(self, truth: GroundTruth) -> np.ndarray:
        """Tell which objects count, (G,) bool."""
        return np.isin(truth.difficult, DIFFICULT_POLICIES[self.difficult_policy])


@dataclass(frozen=True)
class Judgement:
    """What became of each detection and each object.

    Attributes:
        is_true: (D,) bool, true positives.
        is_false: (D,) bool, false positives; what is neither is ignored.
        own: (D,) int64, the object of the own class with the greatest IoU, or -1 for none above
            ``touch_iou``.
        own_iou: (D,) that IoU, else 0.
        about: (D,) int64, object that a detection is about: ``own``, or one of another class that
            makes it wrong; -1 on the background.
        kind: (D,) int64 index into `FALSE_KINDS` of false detections, else -1. The part of a box is
            the one whose correction gives the greatest IoU.
        found: (G,) bool, objects with a true positive.
        missed: (G,) bool, objects that count and that neither a true positive nor a false one with
            an error of class or place is about.
    """

    is_true: np.ndarray
    is_false: np.ndarray
    own: np.ndarray
    own_iou: np.ndarray
    about: np.ndarray
    kind: np.ndarray
    found: np.ndarray
    missed: np.ndarray


@serial_torch()
def judge_detections(
    truth: GroundTruth, detections: Detections, protocol: ErrorProtocol
) -> Judgement:
    """Tell for every detection whether it is true, and if not, what is wrong with it.

    A false detection whose IoU with its best object of its own class is above the threshold is a
    duplicate. Else, if its IoU with any object is above the threshold, its class is wrong. Else,
    if it touches an object of its own class, its place is wrong, if it touches any object, both
    are wrong, and otherwise it lies on the background.

    Args:
        truth: objects.
        detections: detections on the same images, as polygons or boxes.
        protocol: rules.

    Returns:
        The judgement, in the order of the detections and objects.
    """
    objects = Regions.from_polygons(truth.polygons)
    own, own_iou = _own_overlaps(truth, detections, objects, protocol)
    other, other_iou = best_overlaps(
        detections.regions(),
        detections.image_index,
        objects,
        truth.image_index,
        min_iou=protocol.touch_iou,
    )

    # The order of `score_detections`, so that both call the same detections true.
    rank = np.lexsort((detections.image_index, -detections.scores, detections.class_index))
    is_true, is_false = np.zeros((2, len(detections)), dtype=bool)
    counted = protocol.counted(truth)
    is_true[rank], is_false[rank] = judge_ranked(
        own[rank], own_iou[rank] > protocol.iou_threshold, counted
    )

    kind = np.full(len(detections), -1)
    # Where the own class overlaps less, the best object of all is one of another class.
    conditions = (
        own_iou > protocol.iou_threshold,
        other_iou > protocol.iou_threshold,
        own >= 0,
        other >= 0,
    )
    names = ("duplicate", "class", "center", "class and box", "background")
    places = np.select(conditions, range(4), default=4)
    kind[is_false] = np.array([FALSE_KINDS.index(name) for name in names])[places][is_false]
    about = np.where((places == 1) | (places == 3), other, own)

    misplaced = np.flatnonzero(kind == FALSE_KINDS.index("center"))
    kind[misplaced] = FALSE_KINDS.index("center") + _worst_part(
        detections.corners()[misplaced], truth, own[misplaced]
    )

    is_found, is_covered = np.zeros((2, len(counted)), dtype=bool)
    is_found[own[is_true]] = True
    is_covered[about[is_false & (places != 0) & (about >= 0)]] = True
    missed = counted & ~is_found & ~is_covered
    return Judgement(is_true, is_false, own, own_iou, about, kind, is_found, missed)


@serial_torch()
def split_lost_precision(
    truth: GroundTruth, detections: Detections, judgement: Judgement, protocol: ErrorProtocol
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Measure what each kind of error costs: correct it, score again, and take the gain.

    The gains do not add up to what is missing from 1: a box with two wrong parts may need both
    corrected, and the first corrected error of a ranking gains more than the last.

    Args:
        truth: objects.
        detections: detections on the same images.
        judgement: result of `judge_detections` for them.
        protocol: the same rules.

    Returns:
        (C,) average precision of each class in [0, 1], ``nan`` without objects, and for each key of
        `CORRECTIONS` (C,) the gains.
    """
    counted, objects = protocol.counted(truth), Regions.from_polygons(truth.polygons)

    def score(found: Detections, overlaps: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
        own, iou = overlaps
        rules = (counts, (protocol.iou_threshold,), protocol.ap_method)
        return score_overlaps(truth, found, (own, iou), *rules)[0][0]

    own = judgement.own, judgement.own_iou
    base, gains = score(detections, own, counted), {}
    for kind in CORRECTIONS:
        if kind == "missed":
            # No detection has one of them as its best object, so that not counting removes them.
            ap = score(detections, own, counted & ~judgement.missed)
        elif kind in ("duplicate", "background"):
            kept = judgement.kind != FALSE_KINDS.index(kind)
            ap = score(_select(detections, kept), [values[kept] for values in own], counted)
        else:
            rows, corrected = correct_errors(truth, detections, judgement, kind)
            renewed, classes = [values.copy() for values in own], detections.class_index.copy()
            classes[rows] = corrected.class_index
            # Only what was corrected can have another best object.
            for values, new in zip(renewed, _own_overlaps(truth, corrected, objects, protocol)):
                values[rows] = new
            ap = score(replace(detections, class_index=classes), renewed, counted)
        # A class all of whose objects were missed has none left that could be found.
        gains[kind] = np.where(np.isnan(ap), 1.0, ap) - base
    return base, gains


def correct_errors(
    truth: GroundTruth, detections: Detections, judgement: Judgement, kind: str
) -> tuple[np.ndarray, Detections]:
    """Correct the false detections with a wrong class or box.

    All detections with a wrong place get the part that is asked for, whichever is their worst.

    Args:
        truth: objects.
        detections: detections on the same images.
        judgement: result of `judge_detections` for them.
        kind: a key of `CORRECTIONS` that gives a detection something of its object.

    Returns:
        (N,) the detections concerned, and how they look after the correction.
    """
    kinds = BOX_PARTS if kind == "whole box" or kind in BOX_PARTS else (kind,)
    rows = np.flatnonzero(np.isin(judgement.kind, [FALSE_KINDS.index(name) for name in kinds]))
    chosen, about = _select(detections, rows), judgement.about[rows]

    classes, polygons = chosen.class_index, chosen.corners()
    if kind in ("class", "class and box"):
        classes = truth.class_index[about]
    if kind in ("whole box", "class and box"):
        polygons = truth.polygons[about]
    elif kind in BOX_PARTS:
        boxes = polygon_boxes(polygons), polygon_boxes(truth.polygons[about])
        polygons = boxes_to_corners(torch.from_numpy(replace_part(*boxes, kind))).numpy()
    return rows, Detections(chosen.image_index, classes, chosen.scores, polygons=polygons)


def replace_part(boxes: np.ndarray, truth: np.ndarray, part: str) -> np.ndarray:
    """Replace one part of boxes by that of the objects.

    Args:
        boxes: (N, 5) rotated boxes: centre and sides in pixels, angle in degrees.
        truth: (N, 5) boxes of the objects.
        part: one of `BOX_PARTS`; the size is the square root of the area.

    Returns:
        (N, 5) boxes, described with the sides of the object that they correspond to.
    """
    result = align_boxes(boxes, truth)
    # A side of zero has no aspect; a tiny one leaves the box as flat as it was.
    own, sides = (np.maximum(values[:, 2:4], 1e-9) for values in (result, truth))
    if part == "center":
        result[:, :2] = truth[:, :2]
    elif part == "angle":
        result[:, 4] = truth[:, 4]
    elif part == "size":
        result[:, 2:4] = own * np.sqrt(sides.prod(1) / own.prod(1))[:, None]
    elif part == "aspect":
        result[:, 2:4] = sides * np.sqrt(own.prod(1) / sides.prod(1))[:, None]
    else:
        raise ValueError(f"unknown part {part!r}; choose one of {', '.join(BOX_PARTS)}")
    return result


def align_boxes(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Describe boxes so that their sides are those of the objects that they correspond to.

    A rectangle can be described with its sides swapped and the angle turned by 90 degrees. The
    description is taken in which logarithms of the sides and quarter turns differ least in all:
    of long objects the long sides correspond, of nearly square ones the nearest.

    Args:
        boxes: (N, 5) rotated boxes.
        truth: (N, 5) boxes of the objects.

    Returns:
        (N, 5) the same rectangles; the angle differs from the object's by at most 90 degrees.
    """
    swapped = boxes[:, [0, 1, 3, 2, 4]] + (0, 0, 0, 0, 90)
    options = []
    for one in (boxes, swapped):
        turn = (one[:, 4] - truth[:, 4] + 90) % 180 - 90
        ratios = np.log(np.maximum(one[:, 2:4], 1e-9) / np.maximum(truth[:, 2:4], 1e-9))
        options.append((np.abs(ratios).sum(axis=1) + np.abs(turn) / 90, turn))

    (cost, turn), (swapped_cost, swapped_turn) = options
    is_swapped = swapped_cost < cost
    result = np.where(is_swapped[:, None], swapped, boxes)
    result[:, 4] = truth[:, 4] + np.where(is_swapped, swapped_turn, turn)
    return result


def polygon_boxes(polygons: np.ndarray, keep_first_vertex: bool = False) -> np.ndarray:
    """Fit rotated boxes (N, 5) to quadrilaterals (N, 4, 2), see `corners_to_boxes`."""
    return corners_to_boxes(torch.from_numpy(polygons), keep_first_vertex).numpy()


def _own_overlaps(
    truth: GroundTruth, detections: Detections, objects: Regions, protocol: ErrorProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """Find the best object of the own class of each detection (D,), and their IoU (D,)."""
    num_classes = max(len(truth.class_names), 1)
    return best_overlaps(
        detections.regions(),
        detections.image_index * num_classes + detections.class_index,
        objects,
        truth.image_index * num_classes + truth.class_index,
        min_iou=protocol.touch_iou,
    )


def _select(detections: Detections, rows: np.ndarray) -> Detections:
    shapes = (
        None if shape is None else shape[rows] for shape in (detections.boxes, detections.polygons)
    )
    columns = (detections.image_index, detections.class_index, detections.scores)
    return Detections(*(column[rows] for column in columns), *shapes)


def _worst_part(polygons: np.ndarray, truth: GroundTruth, about: np.ndarray) -> np.ndarray:
    """Return for polygons (N, 4, 2) the index of the part whose correction helps most."""
    boxes, objects = polygon_boxes(polygons), polygon_boxes(truth.polygons[about])
    rows, regions = np.arange(len(about)), Regions.from_polygons(truth.polygons[about])
    gains = [
        paired_iou(Regions.from_boxes(replace_part(boxes, objects, part)), rows, regions, rows)
        for part in BOX_PARTS
    ]
    return np.argmax(gains, axis=0)
