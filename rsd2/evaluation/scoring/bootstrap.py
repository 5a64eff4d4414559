"""How sure an average precision is: the objects at hand are a sample of those that might be.

Source: block bootstrap (Künsch 1989). Neighbouring objects are alike, and false alarms come in
clusters, so that blocks of the images are drawn anew, not single objects.

Shapes: G objects, D detections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rsd2.evaluation.matching.polygons import Regions, best_overlaps
from rsd2.evaluation.matching.serial_torch import serial_torch

from .average_precision import average_precision, precision_recall
from .dota import DIFFICULT_POLICIES, Detections, GroundTruth, judge_ranked


def resample_ap(
    truth: GroundTruth,
    *runs: Detections,
    block: float = 128.0,
    iou_threshold: float = 0.5,
    ap_method: str = "voc07",
    difficult_policy: str = "v1.0",
    samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Score resamplings of the blocks of all images.

    Detections are matched once, with all objects. A detection belongs to the block of the object
    that it matches, another one to the block of its centre. Each sample draws the same blocks for
    all runs, so that the difference of two runs does not contain what is hard for both.

    Args:
        truth: objects.
        runs: R sets of detections on the same images.
        block: side of a block, pixels, > 0; infinity draws whole images.
        iou_threshold: see `score_detections`, as the next two.
        ap_method: ``"voc07"`` or ``"area"``.
        difficult_policy: which objects count.
        samples: number of resamplings, >= 1.
        seed: of the draws.

    Returns:
        (samples,) mean AP over the classes of each resampling, in [0, 1]; ``nan`` where no object
        was drawn. (R, samples) with more than one run.

    Raises:
        ValueError: the block has no size, or there are no samples.
    """
    if not block > 0 or samples < 1:
        raise ValueError(f"block and samples must be positive, got {block} and {samples}")
    counts = np.isin(truth.difficult, DIFFICULT_POLICIES[difficult_policy])
    judged = [_judge(truth, run, counts, iou_threshold) for run in runs]

    own = _places(truth.image_index, truth.polygons.mean(axis=1), block)
    places = [own]
    for run, one in zip(runs, judged):
        centers = run.corners().mean(axis=1) if run.boxes is None else run.boxes[:, :2]
        found = _places(run.image_index, centers, block)[one.rank]
        found[one.matches] = own[one.best[one.matches]]
        places.append(found)

    _, blocks = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    num_blocks = int(blocks.max(initial=-1)) + 1
    object_blocks, *found_blocks = np.split(blocks.ravel(), np.cumsum([*map(len, places)])[:-1])

    # Rows by class, so that no sample searches for them.
    labels = range(len(truth.class_names))
    objects = [object_blocks[counts & (truth.class_index == label)] for label in labels]
    rows = [[np.flatnonzero(one.labels == label) for label in labels] for one in judged]

    generator = np.random.default_rng(seed)
    results = np.full((len(runs), samples), np.nan)
    for sample in range(samples if num_blocks else 0):
        drawn = np.bincount(generator.integers(0, num_blocks, num_blocks), minlength=num_blocks)
        positives = [int(drawn[own].sum()) for own in objects]
        for number, (one, where) in enumerate(zip(judged, found_blocks)):
            scores = []
            for label in np.flatnonzero(positives):
                # A block that was drawn twice brings its objects and its detections twice.
                chosen = np.repeat(rows[number][label], drawn[where[rows[number][label]]])
                curve = precision_recall(
                    one.is_true[chosen], one.is_false[chosen], positives[label]
                )
                scores.append(average_precision(*curve, method=ap_method))
            if scores:
                results[number, sample] = np.mean(scores)
    return results[0] if len(runs) == 1 else results


class _Judged(NamedTuple):
    """Detections from the best score to the worst."""

    rank: np.ndarray
    labels: np.ndarray
    best: np.ndarray
    matches: np.ndarray
    is_true: np.ndarray
    is_false: np.ndarray


def _judge(
    truth: GroundTruth, detections: Detections, counts: np.ndarray, iou_threshold: float
) -> _Judged:
    num_classes = len(truth.class_names)
    rank = np.lexsort((detections.image_index, -detections.scores))
    with serial_torch():
        best, iou = best_overlaps(
            detections.regions(),
            detections.image_index * num_classes + detections.class_index,
            Regions.from_polygons(truth.polygons),
            truth.image_index * num_classes + truth.class_index,
            min_iou=iou_threshold,
        )
    best, matches = best[rank], (iou > iou_threshold)[rank]
    judged = judge_ranked(best, matches, counts)
    return _Judged(rank, detections.class_index[rank], best, matches, *judged)


def _places(images: np.ndarray, centers: np.ndarray, block: float) -> np.ndarray:
    """Image, column and row (N, 3) of the blocks of some points."""
    cells = np.floor(np.asarray(centers).reshape(-1, 2) / block).astype(np.int64)
    return np.concatenate([np.asarray(images)[:, None], cells], axis=1)
