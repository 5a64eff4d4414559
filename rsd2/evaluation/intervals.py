"""Scores of finished runs with their uncertainty, from the submission file of the evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .files.task1 import read_task1
from .scoring.bootstrap import resample_ap
from .scoring.dota import COCO_IOU_THRESHOLDS, GroundTruth, score_detections

if TYPE_CHECKING:  # an evaluator needs Detectron2, which scoring files does without
    from .evaluator import BoxEvaluator

AP_METHODS = {"VOC07": "voc07", "area": "area"}
_SHARE = (2.5, 97.5)


class Interval(NamedTuple):
    """A score in percent and the middle 95 % of its resamplings; nan where undefined."""

    value: float
    low: float
    high: float

    def bounds(self) -> str:
        """Write the bounds with one digit, a hyphen if they are undefined."""
        return "-" if math.isnan(self.low) else f"{self.low:.1f} to {self.high:.1f}"


def score_intervals(
    path: str | Path,
    dataset_dicts: Sequence[dict],
    class_names: Sequence[str],
    *,
    ap_method: str = "voc07",
    block: float = math.inf,
    samples: int = 1000,
) -> dict[str, Interval]:
    """Score Task 1 files, and say how far another sample of images might move each score.

    Args:
        path: zip or folder, see `read_task1`.
        dataset_dicts: dicts of the whole images, see `GroundTruth.from_dicts`.
        class_names: names that ``category_id`` indexes.
        ap_method: rule of the average precision, one of `AP_METHODS`' values.
        block: side of the blocks that are drawn anew, pixels; ``math.inf`` draws whole images.
        samples: number of resamplings, >= 1.

    Returns:
        ``AP50``, ``AP75`` and ``AP``, the mean over IoU 0.50 to 0.95.
    """
    truth = GroundTruth.from_dicts(dataset_dicts, class_names)
    detections = read_task1(path, truth.image_ids, truth.class_names)
    found = 100 * score_detections(truth, detections, ap_method=ap_method).mean_ap()

    # One seed draws the same images at every threshold, so that their mean is a resampling.
    drawn = 100 * np.stack(
        [
            resample_ap(
                truth,
                detections,
                block=block,
                iou_threshold=threshold,
                ap_method=ap_method,
                samples=samples,
            )
            for threshold in COCO_IOU_THRESHOLDS
        ]
    )
    values = {
        "AP50": (found[0], drawn[0]),
        "AP75": (found[5], drawn[5]),
        "AP": (found.mean(), drawn.mean(axis=0)),
    }
    return {name: Interval(float(value), *_middle(one)) for name, (value, one) in values.items()}


def interval_table(
    path: str | Path,
    dataset_dicts: Sequence[dict],
    class_names: Sequence[str],
    *,
    block: float = math.inf,
    samples: int = 1000,
) -> str:
    """Tabulate scores with their intervals by both rules of the average precision.

    Args:
        path: see `score_intervals`, as the next four.
        dataset_dicts: dicts of the whole images.
        class_names: names of the classes.
        block: side of the blocks that are drawn anew, pixels; ``math.inf`` draws whole images.
        samples: number of resamplings, >= 1.

    Returns:
        A Markdown table: a row for each rule of the average precision, with AP50, AP75 and the
        mean over IoU 0.50 to 0.95 in percent, each with its 95 % interval.
    """
    lines = [
        f"| average precision, {len(dataset_dicts)} images | AP50 | AP75 | AP |",
        "|---|---|---|---|",
    ]
    for name, method in AP_METHODS.items():
        found = score_intervals(
            path, dataset_dicts, class_names, ap_method=method, block=block, samples=samples
        )
        cells = [f"{one.value:.1f} ({one.bounds()})" for one in found.values()]
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
        bounds = Interval(value, *_middle(sample)).bounds()
        lines.append(f"| {name} | {value:.1f} ({bounds}) |")
    return "\n".join(lines) + "\n"


def _middle(sample: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of a sample, nan if no value is finite."""
    if not np.isfinite(sample).any():
        return math.nan, math.nan
    low, high = np.nanpercentile(sample, _SHARE)
    return float(low), float(high)
