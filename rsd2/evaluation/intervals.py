"""Scores of finished runs with their uncertainty, from the submission file of the evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .evaluator import BoxEvaluator
from .files.task1 import read_task1
from .scoring.bootstrap import resample_ap
from .scoring.dota import COCO_IOU_THRESHOLDS, GroundTruth, score_detections

AP_METHODS = {"VOC07": "voc07", "area": "area"}
_SHARE = (2.5, 97.5)


def interval_table(
    path: str | Path,
    dataset_dicts: Sequence[dict],
    class_names: Sequence[str],
    *,
    block: float = math.inf,
    samples: int = 1000,
) -> str:
    """Score Task 1 files, and say how far another sample of images might move each score.

    Args:
        path: zip or folder, see `read_task1`.
        dataset_dicts: dicts of the whole images, see `GroundTruth.from_dicts`.
        class_names: names that ``category_id`` indexes.
        block: side of the blocks that are drawn anew, pixels; ``math.inf`` draws whole images.
        samples: number of resamplings, >= 1.

    Returns:
        A Markdown table: a row for each rule of the average precision, with AP50, AP75 and the
        mean over IoU 0.50 to 0.95 in percent, each with its 95 % interval.
    """
    truth = GroundTruth.from_dicts(dataset_dicts, class_names)
    detections = read_task1(path, truth.image_ids, truth.class_names)
    lines = [
        f"| average precision, {len(truth.image_ids)} images | AP50 | AP75 | AP |",
        "|---|---|---|---|",
    ]

    for name, method in AP_METHODS.items():
        found = 100 * score_detections(truth, detections, ap_method=method).mean_ap()
        # One seed draws the same images at every threshold, so that their mean is a resampling.
        drawn = 100 * np.stack(
            [
                resample_ap(
                    truth,
                    detections,
                    block=block,
                    iou_threshold=threshold,
                    ap_method=method,
                    samples=samples,
                )
                for threshold in COCO_IOU_THRESHOLDS
            ]
        )
        values = [(found[0], drawn[0]), (found[5], drawn[5]), (found.mean(), drawn.mean(axis=0))]
        cells = [f"{value:.1f} ({_interval(sample)})" for value, sample in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def box_interval_table(
    evaluator: BoxEvaluator, path: str | Path, *, samples: int = 1000, seed: int = 0
) -> str:
    """Score upright boxes, and say how far another sample of images might move each score.

    Whole images are drawn anew: whole frames of a video, whose neighbours are alike, so that its
    intervals are too narrow rather than too wide.

    Args:
        evaluator: evaluator of the dataset, whose rules apply.
        path: JSON list in COCO's result format, as the evaluator writes it.
        samples: number of resamplings, >= 1.
        seed: of the draws.

    Returns:
        A Markdown table: a row for each score of the evaluator, in percent, with its 95 % interval.
    """
    truth, detections = evaluator.read_detections(path)
    found = evaluator.score(truth, detections).result
    generator, number = np.random.default_rng(seed), len(truth.image_ids)

    drawn = []
    for _ in range(samples):
        images = generator.integers(0, number, number)
        result = evaluator.score(truth.draw(images), detections.draw(images)).result
        # A score of a video that was not drawn is missing.
        drawn.append([result.get(name, math.nan) for name in found])

    lines = [f"| {number} images | score |", "|---|---|"]
    for (name, value), sample in zip(found.items(), np.transpose(drawn)):
        lines.append(f"| {name} | {value:.1f} ({_interval(sample)}) |")
    return "\n".join(lines) + "\n"


def _interval(sample: np.ndarray) -> str:
    """Write the middle 95 % of a sample."""
    if not np.isfinite(sample).any():
        return "-"
    low, high = np.nanpercentile(sample, _SHARE)
    return f"{low:.1f} to {high:.1f}"
