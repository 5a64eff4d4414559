"""Paired differences of arms whose pre-trainings and fine-tunings both have seeds.

Shapes: P pre-trainings, F fine-tunings of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.evaluation.dota import SUBMISSION_FILE
from rsd2.evaluation.files.task1 import read_task1
from rsd2.evaluation.intervals import AP_METHODS
from rsd2.evaluation.scoring.bootstrap import resample_ap
from rsd2.evaluation.scoring.dota import (
    COCO_IOU_THRESHOLDS,
    Detections,
    GroundTruth,
    score_detections,
)
from rsd2.study.comparison import Rows, crossed_bootstrap
from rsd2.study.report import format_table

from .study_arms import ARMS, BASELINE

_ORDER = [arm.title for arm in ARMS.values()]
_REFERENCES = tuple(
    ARMS[name].title
    for name in (BASELINE, "detreg", "detreg_sum", "detreg_compute", "mutdet", "both")
)
SEPARATOR = ", pre-training "
"""Between an arm's title and the seed of its pre-training, where there are several."""


def paired_values(rows: Rows, metric: str) -> dict[tuple[str, str], dict[str, dict[int, float]]]:
    """Sort the values of a metric.

    Args:
        rows: rows of the report.
        metric: name of the metric; rows without a value are left out.

    Returns:
        (arm, group) -> pre-training -> seed of the fine-tuning -> value.
    """
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row[metric] is not None:
            arm, _, start = row["arm"].partition(SEPARATOR)
            values.setdefault((arm, row["group"]), {}).setdefault(start, {})[row["seed"]] = row[
                metric
            ]
    return values


def compare(rows: Rows, metrics: Mapping[str, str]) -> list[str]:
    """Tabulate how the arms differ from those that they have to beat.

    Args:
        rows: rows of the report.
        metrics: metric -> title.

    Returns:
        Lines of Markdown; none if no arm has two fine-tunings that can be compared.
    """
    cells: list[Sequence[Any]] = []
    for metric, title in metrics.items():
        values = paired_values(rows, metric)
        for reference in _REFERENCES:
            for arm, group in values:
                others = values.get((reference, group))
                # Each pair once, the later arm of the table minus the earlier one.
                if not others or _ORDER.index(arm) <= _ORDER.index(reference):
                    continue

                found = differences_of(values[arm, group], others)
                if found.size > 1:
                    # Fine-tunings of one pre-training are not independent results, nor are those
                    # of one seed, which draws the same images and noise whatever it starts from.
                    low, high = crossed_bootstrap(found)
                    interval = f"{low:+.1f} to {high:+.1f}"
                    counts = f"{found.shape[0]} x {found.shape[1]}"
                    mean = f"{found.mean():+.1f}"
                    cells.append([title, f"{arm} - {reference}", group, mean, interval, counts])

    if not cells:
        return []
    headers = ["metric", "difference", "group", "mean", "95 % bootstrap interval", "seeds"]
    return [format_table(cells, headers), ""]


def compare_by_image(rows: Rows, folders: Sequence[Path], dataset: str) -> list[str]:
    """Tabulate how arms of the same seed and data differ, and how another choice of images would.

    Args:
        rows: rows of the report.
        folders: folder of the training of each row; its averaged weights are compared.
        dataset: name of the registered test set.

    Returns:
        Lines of Markdown: a row for each rule of the average precision and each arm but the
        reference, with the interval that holds 95 % of 1000 resamplings of the images, the same
        ones for both.
    """
    records, names = DatasetCatalog.get(dataset), MetadataCatalog.get(dataset).thing_classes
    truth = GroundTruth.from_dicts(records, names)
    runs = {}
    for row, folder in zip(rows, folders):
        file = folder / "inference/ema" / SUBMISSION_FILE
        found = read_task1(file, truth.image_ids, truth.class_names)
        runs[row["group"], row["seed"], row["arm"].partition(SEPARATOR)[0]] = found

    cells = []
    for (group, seed, arm), found in runs.items():
        for reference in _REFERENCES:
            other = runs.get((group, seed, reference))
            if other is None or _ORDER.index(arm) <= _ORDER.index(reference):
                continue
            for title, rule in AP_METHODS.items():
                pair = [
                    f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
                    for value, low, high in _resample(truth, found, other, rule)
                ]
                cells.append([group, f"{arm} - {reference}", seed, title, *pair])
    if not cells:
        return []
    headers = ["group", "difference", "seed", "rule", "AP50", "AP75", "AP"]
    return [format_table(cells, headers), ""]


def _resample(
    truth: GroundTruth, found: Detections, other: Detections, rule: str
) -> list[tuple[float, float, float]]:
    """Compare two runs on images drawn anew: AP50, AP75 and AP, each with its interval, percent."""
    drawn = []
    scores = [score_detections(truth, run, ap_method=rule).mean_ap() for run in (found, other)]
    for threshold in COCO_IOU_THRESHOLDS:
        options = {"block": math.inf, "iou_threshold": threshold, "ap_method": rule}
        one, two = resample_ap(truth, found, other, **options)
        drawn.append(one - two)
    values, drawn = 100 * (scores[0] - scores[1]), 100 * np.stack(drawn)

    # One seed draws the same images at every threshold, so that their mean is a resampling.
    chosen = [(values[0], drawn[0]), (values[5], drawn[5]), (values.mean(), drawn.mean(axis=0))]
    return [(value, *np.nanpercentile(sample, (2.5, 97.5))) for value, sample in chosen]


def differences_of(
    values: Mapping[str, Mapping[int, float]], others: Mapping[str, Mapping[int, float]]
) -> np.ndarray:
    """Pair the values of two arms.

    Args:
        values: pre-training -> seed of the fine-tuning -> value.
        others: the same of the reference; without pre-training there is one.

    Returns:
        (P, F) differences, over the pre-trainings and seeds that all have; (0, 0) without any.
    """
    alone = next(iter(others.values())) if len(others) == 1 else None
    pairs = [(values[start], others.get(start, alone)) for start in values]
    known = [(one, other) for one, other in pairs if other is not None]
    if not known:
        return np.zeros((0, 0))
    seeds = sorted(set.intersection(*(set(one) & set(other) for one, other in known)))
    return np.array([[one[seed] - other[seed] for seed in seeds] for one, other in known])
