"""Paired differences of arms whose pre-trainings and fine-tunings both have seeds.

Shapes: P pre-trainings, F fine-tunings of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsd2.study.comparison import Rows, crossed_bootstrap
from rsd2.study.report import format_table

from .study_arms import ARMS, BASELINE

_ORDER = [arm.title for arm in ARMS.values()]
_REFERENCES = tuple(
    ARMS[name].title for name in (BASELINE, "detreg", "detreg_sum", "mutdet", "both")
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
