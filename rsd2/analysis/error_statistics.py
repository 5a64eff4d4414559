"""What a detector finds and where it errs: curves, confusions, calibration, and recall by object.

Shapes: G ground-truth objects, D detections, C classes, T cuts of the ranking, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rsd2.evaluation.scoring.bootstrap import resample_ap
from rsd2.evaluation.scoring.dota import Detections, GroundTruth

from .error_input import LabelledSet, Predictions
from .error_kinds import (
    FALSE_KINDS,
    ErrorProtocol,
    Judgement,
    align_boxes,
    judge_detections,
    polygon_boxes,
    split_lost_precision,
)

NUM_CALIBRATION_BINS = 10
SIZE_EDGES = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, np.inf)
"""Bounds of sizes, pixels and metres, and of distances to a border, pixels."""
NEIGHBOUR_EDGES = (0, 1, 3, 6, 11, np.inf)
ASPECT_EDGES = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, np.inf)
INTERVAL = (2.5, 97.5)
_ENOUGH_IMAGES = 30
_BLOCK = 256.0


class Curve(NamedTuple):
    """Precision, recall and F1 where the ranking is cut; equal scores are cut together.

    Attributes:
        scores: (T,) lowest score that is kept, decreasing.
        precision: (T,) in [0, 1].
        recall: (T,) in [0, 1].
        f1: (T,) their harmonic mean.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def best_score(self) -> float:
        """Score with the greatest F1, the highest of several; 0 without detections."""
        return float(self.scores[self.f1.argmax()]) if len(self.f1) else 0.0


class Bin(NamedTuple):
    """Objects in a range of a property.

    Attributes:
        name: the range in words.
        objects: number of the objects that count.
        recall: share of them that is found, ``nan`` for none.
    """

    name: str
    objects: int
    recall: float


class RunDifference(NamedTuple):
    """Advantage of the second of two runs.

    Attributes:
        difference: mean AP of the second less that of the first, in [-1, 1].
        interval: bounds within which 95 % of the resampled differences lie.
        better: share of the samples in which the second is better.
        samples: number of samples.
        unit: what was drawn, in words.
    """

    difference: float
    interval: tuple[float, float]
    better: float
    samples: int
    unit: str


@dataclass(frozen=True)
class RunErrors:
    """A run with what is wrong with it.

    Attributes:
        predictions: detections of the run.
        judgement: what became of each of them.
        ap: (C,) average precision in [0, 1], ``nan`` without objects.
        gains: (C,) what each kind of error costs, by kind.
        curve: all classes together.
        threshold: score with the greatest F1 of all classes together; what is shown, and counted as
            found, has at least this score.
        is_shown: (D,) bool.
        is_found: (G,) bool, objects that a shown detection has found.
    """

    predictions: Predictions
    judgement: Judgement
    ap: np.ndarray
    gains: dict[str, np.ndarray]
    curve: Curve
    threshold: float
    is_shown: np.ndarray
    is_found: np.ndarray

    @property
    def detections(self) -> Detections:
        """Detections of the run."""
        return self.predictions.detections

    def count(self, kind: str) -> tuple[int, int]:
        """Count the errors of a kind: (all, those with at least the threshold's score)."""
        if kind not in FALSE_KINDS:
            return 0, 0
        own = self.judgement.kind == FALSE_KINDS.index(kind)
        return int(own.sum()), int((own & self.is_shown).sum())


def analyse_run(
    labels: LabelledSet, predictions: Predictions, protocol: ErrorProtocol
) -> RunErrors:
    """Judge the detections of a run, and split what is lost.

    Args:
        labels: labels of the dataset.
        predictions: detections of the run.
        protocol: rules.

    Returns:
        The errors of the run.
    """
    truth, detections = labels.truth, predictions.detections
    judgement = judge_detections(truth, detections, protocol)
    ap, gains = split_lost_precision(truth, detections, judgement, protocol)
    curve = confidence_curve(detections, judgement, int(protocol.counted(truth).sum()))
    threshold = curve.best_score
    is_shown = detections.scores >= threshold
    is_found = np.zeros(len(truth.polygons), dtype=bool)
    is_found[judgement.own[judgement.is_true & is_shown]] = True
    return RunErrors(predictions, judgement, ap, gains, curve, threshold, is_shown, is_found)


def confidence_curve(
    detections: Detections, judgement: Judgement, num_objects: int, label: int | None = None
) -> Curve:
    """Compute precision, recall and F1 by the score at which the ranking is cut.

    Args:
        detections: D detections.
        judgement: what became of them.
        num_objects: number of objects that count, of the class if one is chosen.
        label: class; None takes all classes together.

    Returns:
        The curve; without detections it is empty.
    """
    own = judgement.is_true | judgement.is_false
    if label is not None:
        own &= detections.class_index == label
    rows = np.flatnonzero(own)
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]

    scores = detections.scores[rows]
    cuts = np.flatnonzero(np.append(scores, -np.inf)[:-1] != np.append(scores, -np.inf)[1:])
    true = np.cumsum(judgement.is_true[rows])[cuts]
    recall = true / num_objects if num_objects else np.full(len(cuts), np.nan)
    # F1 is twice the true ones over those shown and those looked for.
    return Curve(scores[cuts], true / (cuts + 1), recall, 2 * true / (cuts + 1 + num_objects))


def confusion_matrix(
    labels: LabelledSet, run: RunErrors, protocol: ErrorProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """Count which classes are taken for which, with the detections of the best F1.

    An object that is not found counts once, for the best-scored detection of another class that
    covers it; without one it is missed. Other false detections lie on the background.

    Args:
        labels: labels of the dataset.
        run: errors of the run.
        protocol: rules.

    Returns:
        (C + 1, C + 1) int64, rows: class of the object, last the background; columns: class of the
        detection, last nothing; and the (N,) detections of confused classes, best score first.
    """
    truth, detections, judgement = labels.truth, run.detections, run.judgement
    num_classes = len(truth.class_names)
    counted = protocol.counted(truth)
    confused = run.is_shown & (judgement.kind == FALSE_KINDS.index("class"))
    (rows,) = np.nonzero(confused)
    rows = rows[~run.is_found[judgement.about[rows]] & counted[judgement.about[rows]]]
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    # Of several detections of one object the first, which has the best score.
    _, first = np.unique(judgement.about[rows], return_index=True)
    rows = rows[np.sort(first)]

    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    found = counted & run.is_found
    np.add.at(matrix, (truth.class_index[found], truth.class_index[found]), 1)
    np.add.at(matrix, (truth.class_index[judgement.about[rows]], detections.class_index[rows]), 1)
    is_missed = counted & ~found
    is_missed[judgement.about[rows]] = False
    np.add.at(matrix[:, num_classes], truth.class_index[is_missed], 1)

    is_false = run.is_shown & judgement.is_false
    is_false[rows] = False
    np.add.at(matrix[num_classes], detections.class_index[is_false], 1)
    return matrix, rows


def calibration(run: RunErrors) -> tuple[np.ndarray, float]:
    """Compare the scores with how often they are right.

    Args:
        run: errors of the run.

    Returns:
        (B, 3) number of detections, mean score and share of true ones in each tenth of the scores
        (``nan`` where there are none), and the expected calibration error: the mean distance of the
        two, weighted by the number; ``nan`` without detections.
    """
    own = run.judgement.is_true | run.judgement.is_false
    scores, is_true = run.detections.scores[own], run.judgement.is_true[own]
    bins = np.clip((scores * NUM_CALIBRATION_BINS).astype(np.int64), 0, NUM_CALIBRATION_BINS - 1)
    counts, sums, hits = (
        np.bincount(bins, weights=weights, minlength=NUM_CALIBRATION_BINS)
        for weights in (None, scores, is_true)
    )
    with np.errstate(invalid="ignore"):
        table = np.stack([counts, sums / counts, hits / counts], axis=1)
        error = float(np.abs(sums - hits).sum() / counts.sum())
    return table, error


def recall_by(
    values: np.ndarray, edges: Sequence[float], counted: np.ndarray, found: np.ndarray
) -> list[Bin]:
    """Measure the recall by a property of the objects.

    Args:
        values: (G,) property; objects where it is ``nan`` are left out.
        edges: B + 1 bounds, increasing, the first of each bin included.
        counted: (G,) bool, objects that count.
        found: (G,) bool, objects that are found.

    Returns:
        The bins that are not empty.
    """
    bins = []
    for low, high in zip(edges[:-1], edges[1:]):
        own = counted & (values >= low) & ((values < high) | ((high == np.inf) & (values == high)))
        if own.any():
            bins.append(Bin(_range_name(low, high), int(own.sum()), float(found[own].mean())))
    return bins


def angle_errors(labels: LabelledSet, run: RunErrors) -> list[tuple[str, int, float, float]]:
    """Measure how far found objects are turned, by the aspect of the object.

    Args:
        labels: labels of the dataset.
        run: errors of the run.

    Returns:
        (range of the aspect, number, median and 90th percentile of the error in degrees) of each
        bin that is not empty.
    """
    boxes, objects = _matched_boxes(labels, run)
    errors = np.abs(align_boxes(boxes, objects)[:, 4] - objects[:, 4])
    aspects = objects[:, 2] / np.maximum(objects[:, 3], 1e-9)
    rows = []
    for low, high in zip(ASPECT_EDGES[:-1], ASPECT_EDGES[1:]):
        own = errors[(aspects >= low) & (aspects < high)]
        if len(own):
            name = _range_name(low, high)
            rows.append((name, len(own), float(np.median(own)), float(np.percentile(own, 90))))
    return rows


def heading_flips(labels: LabelledSet, run: RunErrors) -> list[tuple[str, int, int]] | None:
    """Count found objects that are taken for heading the other way.

    The heading of a detection is the direction from its first to its second corner.

    Args:
        labels: labels of the dataset.
        run: errors of the run.

    Returns:
        (class, number of found objects with a head, number of those whose direction is wrong by
        more than 90 degrees); None if the detections have no heading, because none points left.
    """
    rows = np.flatnonzero(run.judgement.is_true & run.is_shown)
    about = run.judgement.own[rows]
    angles = polygon_boxes(run.detections.corners()[rows], keep_first_vertex=True)[:, 4]
    # Boxes without heading are described with angles of half a turn, up to rounding.
    if not (np.abs(angles) > 90.1).any():
        return None

    known = np.isfinite(labels.heading[about])
    turn = (angles - labels.heading[about] + 180) % 360 - 180
    classes = labels.truth.class_index[about]
    return [
        (name, int(own.sum()), int((np.abs(turn[own]) > 90).sum()))
        for label, name in enumerate(labels.truth.class_names)
        if (own := known & (classes == label)).any()
    ]


def count_errors_of_images(labels: LabelledSet, run: RunErrors, counted: np.ndarray) -> np.ndarray:
    """Count the shown false detections and the missed objects of each image.

    Args:
        labels: labels of the dataset.
        run: errors of the run.
        counted: (G,) bool, objects that count.

    Returns:
        (I, 2) numbers of false detections and missed objects of each image.
    """
    num_images = len(labels.truth.image_ids)
    is_false, is_missed = run.judgement.is_false & run.is_shown, counted & ~run.is_found
    false = np.bincount(run.detections.image_index[is_false], minlength=num_images)
    missed = np.bincount(labels.truth.image_index[is_missed], minlength=num_images)
    return np.stack([false, missed], axis=1)


def compare_runs(
    truth: GroundTruth, runs: Sequence[RunErrors], protocol: ErrorProtocol
) -> RunDifference:
    """Measure by how much the second run is better, and how sure that is.

    Args:
        truth: objects.
        runs: errors of two runs that were evaluated by the same protocol.
        protocol: rules.

    Returns:
        The difference with its paired bootstrap interval.
    """
    first, second = runs
    # Few images give few draws; blocks of them are more, though neighbours are alike.
    block = np.inf if len(truth.image_ids) >= _ENOUGH_IMAGES else _BLOCK
    drawn = resample_ap(
        truth,
        first.detections,
        second.detections,
        block=block,
        iou_threshold=protocol.iou_threshold,
        ap_method=protocol.ap_method,
        difficult_policy=protocol.difficult_policy,
    )
    differences = drawn[1] - drawn[0]
    low, high = np.nanpercentile(differences, INTERVAL)
    unit = "images" if block == np.inf else f"blocks of {block:g} pixels"
    difference = float(np.nanmean(second.ap) - np.nanmean(first.ap))
    better = float((differences > 0).mean())
    return RunDifference(difference, (float(low), float(high)), better, len(differences), unit)


def _range_name(low: float, high: float) -> str:
    if high == np.inf:
        return f"{low:g} and more"
    # Whole numbers end before the next range begins.
    last = high - 1 if isinstance(low, int) else high
    return f"{low:g}" if last == low else f"{low:g} to {last:g}"


def _matched_boxes(labels: LabelledSet, run: RunErrors) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 5) of shown true detections, and those of their objects."""
    rows = np.flatnonzero(run.judgement.is_true & run.is_shown)
    objects = labels.truth.polygons[run.judgement.own[rows]]
    return polygon_boxes(run.detections.corners()[rows]), polygon_boxes(objects)
