"""How sure an average precision is: the objects at hand are a sample of those that might be.

Source: block bootstrap (Künsch 1989). Neighbouring objects are alike, and false alarms come in
clusters, so that blocks of the images are drawn anew, not single objects.

Shapes: G objects, D detections.
"""

from __future__ import annotations

import numpy as np

from rsd2.evaluation.matching.polygons import Regions, best_overlaps
from rsd2.evaluation.matching.serial_torch import serial_torch

from .average_precision import average_precision, precision_recall
from .dota import DIFFICULT_POLICIES, Detections, GroundTruth, judge_ranked


def resample_ap(
    truth: GroundTruth,
    detections: Detections,
    *,
    block: float = 128.0,
    iou_threshold: float = 0.5,
    ap_method: str = "voc07",
    difficult_policy: str = "v1.0",
    samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Score resamplings of the blocks of all images.

    Detections are matched once, with all objects. A detection belongs to the block of the object
    that it matches, another one to the block of its centre.

    Args:
        truth: objects.
        detections: on the same images.
        block: side of a block, pixels, > 0; ``math.inf`` draws whole images.
        iou_threshold: see `score_detections`, as the next two.
        ap_method: ``"voc07"`` or ``"area"``.
        difficult_policy: which objects count.
        samples: number of resamplings, >= 1.
        seed: of the draws.

    Returns:
        (samples,) mean AP over the classes of each resampling, in [0, 1]; ``nan`` where no object
        was drawn.

    Raises:
        ValueError: the block has no size, or there are no samples.
    """
    if not block > 0 or samples < 1:
        raise ValueError(f"block and samples must be positive, got {block} and {samples}")
    num_classes = len(truth.class_names)
    rank = np.lexsort((detections.image_index, -detections.scores))
    labels = detections.class_index[rank]
    with serial_torch():
        best, iou = best_overlaps(
            detections.regions(),
            detections.image_index * num_classes + detections.class_index,
            Regions.from_polygons(truth.polygons),
            truth.image_index * num_classes + truth.class_index,
            min_iou=iou_threshold,
        )
    best, matches = best[rank], (iou > iou_threshold)[rank]
    counts = np.isin(truth.difficult, DIFFICULT_POLICIES[difficult_policy])
    is_true, is_false = judge_ranked(best, matches, counts)

    own = _places(truth.image_index, truth.polygons.mean(axis=1), block)
    found = _places(detections.image_index, detections.corners().mean(axis=1), block)[rank]
    found[matches] = own[best[matches]]
    _, blocks = np.unique(np.concatenate([own, found]), axis=0, return_inverse=True)
    blocks = blocks.ravel()
    num_blocks = int(blocks.max(initial=-1)) + 1
    object_blocks, found_blocks = np.split(blocks, [len(own)])

    generator = np.random.default_rng(seed)
    results = np.full(samples, np.nan)
    for sample in range(samples if num_blocks else 0):
        drawn = np.bincount(generator.integers(0, num_blocks, num_blocks), minlength=num_blocks)
        scores = []
        for label in range(num_classes):
            positives = int(drawn[object_blocks[counts & (truth.class_index == label)]].sum())
            # A block that was drawn twice brings its objects and its detections twice.
            chosen = np.repeat(
                np.flatnonzero(labels == label), drawn[found_blocks[labels == label]]
            )
            if positives:
                curve = precision_recall(is_true[chosen], is_false[chosen], positives)
                scores.append(average_precision(*curve, method=ap_method))
        if scores:
            results[sample] = np.mean(scores)
    return results


def _places(images: np.ndarray, centers: np.ndarray, block: float) -> np.ndarray:
    """Image, column and row (N, 3) of the blocks of some points."""
    cells = np.floor(np.asarray(centers).reshape(-1, 2) / block).astype(np.int64)
    return np.concatenate([np.asarray(images)[:, None], cells], axis=1)
