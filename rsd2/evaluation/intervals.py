"""Scores of finished runs with their uncertainty, from the submission file of the evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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


def _interval(sample: np.ndarray) -> str:
    """Write the middle 95 % of a sample."""
    if not np.isfinite(sample).any():
        return "-"
    low, high = np.nanpercentile(sample, _SHARE)
    return f"{low:.1f} to {high:.1f}"
