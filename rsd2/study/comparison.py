"""Judgement of a study's arms: whether a course is flat, and what a difference is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """Advantage of an arm over the baseline, over seeds.

    Attributes:
        arm: name of the arm.
        group: data that both were trained on, see `StudyRun`.
        mean: mean of the paired differences, in units of the metric.
        interval: bounds of the mean's confidence interval; None with one pair.
        pairs: number of seeds that both arms were trained with.
        items: number of parts of the test set, like videos; 0 if they were not told apart.
    """

    arm: str
    group: str
    mean: float
    interval: tuple[float, float] | None
    pairs: int
    items: int = 0


def last_fifth(course: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points of the last fifth of a training.

    Args:
        course: (steps, value), ascending.

    Returns:
        The points there.
    """
    # The evaluation after the last step is logged as if one more step had been done.
    return [point for point in course if point[0] >= 0.8 * (course[-1][0] - 1)]


def change_over_last_fifth(
    course: Sequence[tuple[int, float]], in_percent: bool = False
) -> float | None:
    """Measure how much a line fitted to the last fifth of a course rises from its start to its end.

    Args:
        course: (steps, value), ascending.
        in_percent: give the rise in percent of the line's start, for losses, whose size says
            little.

    Returns:
        The rise, in units of the value or in percent; None with fewer than three points there.
    """
    last = np.array(last_fifth(course), dtype=np.float64)
    if len(last) < 3:
        return None

    # A line through all points: the last value alone would show the noise of a single evaluation.
    slope, offset = np.polyfit(last[:, 0], last[:, 1], 1)
    rise = slope * (last[-1, 0] - last[0, 0])
    if not in_percent:
        return float(rise)
    level = offset + slope * last[0, 0]
    return float(100 * rise / level) if level else None


def paired_differences(rows: Rows, metric: str, baseline: str) -> list[Difference]:
    """Compare every arm with the baseline, seed by seed.

    An effect of the seed on both arms of a pair cancels, so the interval is that of the arms'
    difference. It is Student's, for differences that are about normally distributed.

    Args:
        rows: rows of the report, with ``arm``, ``group``, ``seed`` and the metric, which may be
            None.
        metric: name of the compared metric.
        baseline: arm that the others are compared with, in each group.

    Returns:
        A difference for each other arm and group that has a pair, in the order of the rows.
    """
    values = {(row["arm"], row["group"], row["seed"]): row[metric] for row in rows}
    others = dict.fromkeys((row["arm"], row["group"]) for row in rows if row["arm"] != baseline)
    found = []
    for arm, group in others:
        seeds = [seed for one, other, seed in values if (one, other) == (arm, group)]
        pairs = [(values[arm, group, seed], values.get((baseline, group, seed))) for seed in seeds]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        if known:
            found.append(Difference(arm, group, *student_interval(known), len(known)))

    return found


def paired_bootstrap(
    rows: Rows, key: str, arm: str, baseline: str, draws: int = 10_000
) -> Difference | None:
    """Compare two arms part by part of the test set and seed by seed.

    The interval is that of `crossed_bootstrap`: it holds for other seeds and for other videos.

    Args:
        rows: rows of the report, with ``arm``, ``seed`` and ``key``.
        key: entry of a row that maps names of parts, like videos, to values; a part that is
            undefined (None or nan) for any row is left out.
        arm: name of the arm.
        baseline: name of the arm that it is compared with.
        draws: number of draws.

    Returns:
        The difference, or None if no part is known of both with one seed.
    """
    values = {(row["arm"], row["seed"]): row[key] for row in rows if row["arm"] in (arm, baseline)}
    seeds = [seed for one, seed in values if one == arm and (baseline, seed) in values]
    if not seeds:
        return None

    names = list(values[arm, seeds[0]])
    # As float, because a file holds an undefined value as null, which becomes nan here.
    ours, theirs = (
        np.array([[values[one, k][name] for name in names] for k in seeds], dtype=np.float64)
        for one in (arm, baseline)
    )
    table = ours - theirs
    table = table[:, np.isfinite(table).all(axis=0)]
    if not table.size:
        return None

    return Difference(arm, "", float(table.mean()), crossed_bootstrap(table, draws), *table.shape)


def crossed_bootstrap(table: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Estimate the interval of a table's mean, where rows and columns are samples both.

    Source: the pigeonhole bootstrap (Owen 2007). Rows and columns are drawn with replacement, each
    by itself, because the values of one row, or of one column, are not independent.

    Args:
        table: (R, C) values, R and C >= 1.
        draws: number of draws.

    Returns:
        The bounds that hold `CONFIDENCE` of the drawn means, in units of the values.
    """
    # How often a row or a column is drawn is its weight; a fixed generator repeats the report.
    generator = np.random.default_rng(0)
    rows, columns = (generator.multinomial(n, np.full(n, 1 / n), draws) for n in table.shape)

    # Whole counts, so that equal values have an interval without width.
    means = np.einsum("dr,rc,dc->d", rows, table, columns) / table.size
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Compute a mean and Student's confidence interval of it.

    Args:
        values: one value or more, about normally distributed.

    Returns:
        The mean and the bounds of its interval, which is None for one value.
    """
    known = np.array(values, dtype=np.float64)
    mean = float(known.mean())
    if len(known) < 2:
        return mean, None

    # One degree of freedom goes to the mean, in the quantile as in the deviation.
    quantile = stdtrit(len(known) - 1, 0.5 + CONFIDENCE / 2)
    half = float(quantile * known.std(ddof=1) / math.sqrt(len(known)))
    return mean, (mean - half, mean + half)


def judge_baseline(rows: Rows, baseline: str, metric: str, *, least: float, flat: float) -> str:
    """Say whether the baseline was trained far enough for the comparison to count.

    Args:
        rows: rows of the report.
        baseline: arm that must reach ``least`` and be flat, with every seed.
        metric: name of the metric.
        least: value that it must reach, percent.
        flat: greatest change over the last fifth of the training, in points, that is called flat.

    Returns:
        A sentence.
    """
    found = [row for row in rows if row["arm"] == baseline]
    if not found:
        return f"{baseline} was not trained: the comparison does not count."

    # The worst seed decides, so that no lucky one makes the comparison count.
    reached = min(row[metric] or 0.0 for row in found)
    changes = [row["change_over_last_fifth"] for row in found]
    if None in changes:
        course, is_flat = "was evaluated too seldom to tell its course", False
    else:
        worst = max(changes, key=abs)
        course = f"changes by {worst:+.2f} over the last fifth (asked: {flat:g} or less)"
        is_flat = abs(worst) <= flat

    facts = f"{baseline} reaches {metric} {reached:.2f} (asked: {least:g}) and {course}"
    if reached >= least and is_flat:
        return f"{facts}: the comparison counts."
    return f"{facts}: the comparison does not count; train longer."
