"""Figures of the report of errors, narrow enough for a phone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .error_kinds import CORRECTIONS
from .error_statistics import Bin, Curve, RunErrors

_WIDTH = 4.6
_FONT = 8
# Dark and light enough to be told apart without colour.
_COLORS = ("#1f5a99", "#e08a1e")
_MOST_LINES = 9


def plot_gains(runs: Sequence[RunErrors]) -> Figure:
    """Draw what each kind of error costs, in points of mean AP.

    Args:
        runs: one run or two.

    Returns:
        The figure.
    """
    figure, axes = _start(0.32 * len(CORRECTIONS) * (0.6 + 0.4 * len(runs)) + 0.9)
    for number, run in enumerate(runs):
        values = [100 * _mean(gain) for gain in run.gains.values()]
        places = np.arange(len(values)) + _offset(number, len(runs))
        bars = axes.barh(places, values, 0.8 / len(runs), color=_COLORS[number], label=_name(run))
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=_FONT)

    axes.set_yticks(range(len(CORRECTIONS)), list(CORRECTIONS))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("AP that its correction gains, points")
    _finish(axes, legend=len(runs) > 1)
    return figure


def plot_curves(
    curves: Sequence[tuple[str, Curve]], against: str, threshold: float | None = None
) -> Figure:
    """Draw precision over recall, or F1 over the score.

    Args:
        curves: (name, curve) of the classes and of all together, most interesting first; only the
            first are drawn, so that their names can be read.
        against: ``"recall"`` or ``"score"``.
        threshold: score to mark.

    Returns:
        The figure.
    """
    figure, axes = _start(3.6)
    for name, curve in curves[:_MOST_LINES]:
        x, y = (curve.recall, curve.precision) if against == "recall" else (curve.scores, curve.f1)
        # An SVG of a hundred thousand points opens slowly, and nobody sees the difference.
        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), 400)).astype(int))
        (line,) = axes.plot(x[kept], y[kept], label=name, linewidth=1.1)
        if name == "all":
            line.set(color="black", linewidth=2.0)

    if threshold is not None:
        axes.axvline(threshold, color="grey", linestyle=":", linewidth=1)
    axes.set(
        xlabel=against, ylabel="precision" if against == "recall" else "F1", xlim=(0, 1.01),
        ylim=(0, 1.02),
    )  # fmt: skip
    _finish(axes, legend=True)
    return figure


def plot_confusions(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, coloured by the share of each row.

    Args:
        matrix: (C + 1, C + 1) counts, see `confusion_matrix`.
        class_names: names of the classes.

    Returns:
        The figure.
    """
    side = max(_WIDTH, 1.3 + 0.36 * len(matrix))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(matrix)):
        color = "white" if shares[row, column] > 0.6 else "black"
        number = str(matrix[row, column])
        axes.text(column, row, number, ha="center", va="center", color=color, fontsize=7)

    places = range(len(matrix))
    axes.set_xticks(places, [*class_names, "missed"], rotation=60, ha="right", fontsize=_FONT)
    axes.set_yticks(places, [*class_names, "background"], fontsize=_FONT)
    axes.set_xlabel("detected as", fontsize=_FONT)
    axes.set_ylabel("is", fontsize=_FONT)
    return figure


def plot_recall(bins: Sequence[Sequence[Bin]], runs: Sequence[RunErrors], label: str) -> Figure:
    """Draw the recall by a property of the objects, with the numbers of objects.

    Args:
        bins: bins of each run.
        runs: the runs.
        label: the property, in words.

    Returns:
        The figure.
    """
    figure, axes = _start(2.9)
    for number, (run, own) in enumerate(zip(runs, bins)):
        places = np.arange(len(own)) + _offset(number, len(runs))
        heights = [one.recall for one in own]
        axes.bar(places, heights, 0.8 / len(runs), color=_COLORS[number], label=_name(run))

    names = [f"{one.name}\n{one.objects}" for one in bins[0]]
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set(ylim=(0, 1.02), ylabel="recall", xlabel=f"{label}; number of objects")
    _finish(axes, legend=len(runs) > 1)
    return figure


def plot_angles(
    rows: Sequence[Sequence[tuple[str, int, float, float]]], runs: Sequence[RunErrors]
) -> Figure:
    """Draw the angle error by the aspect of the object: the median, and the 90th percentile.

    Args:
        rows: result of `angle_errors` for each run.
        runs: the runs.

    Returns:
        The figure.
    """
    figure, axes = _start(2.9)
    names = list(dict.fromkeys(row[0] for own in rows for row in own))
    for number, (run, own) in enumerate(zip(runs, rows)):
        places = np.array([names.index(row[0]) for row in own]) + _offset(number, len(runs))
        medians, tops = np.array([row[2:] for row in own]).reshape(-1, 2).T
        axes.bar(places, medians, 0.8 / len(runs), color=_COLORS[number], label=_name(run))
        axes.scatter(places, tops, marker="_", s=120, color="black", zorder=3)

    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set(ylabel="angle error, degrees", xlabel="long side over short side of the object")
    _finish(axes, legend=len(runs) > 1)
    return figure


def plot_calibration(tables: Sequence[np.ndarray], runs: Sequence[RunErrors]) -> Figure:
    """Draw how often detections are right, by their score.

    Args:
        tables: first result of `calibration` for each run.
        runs: the runs.

    Returns:
        The figure.
    """
    figure, axes = _start(3.3)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for number, (run, table) in enumerate(zip(runs, tables)):
        known = table[:, 0] > 0
        x, y = table[known, 1], table[known, 2]
        axes.plot(x, y, "o-", color=_COLORS[number], markersize=4, label=_name(run))

    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="share of true detections")
    _finish(axes, legend=len(runs) > 1)
    return figure


def _start(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes, legend: bool) -> None:
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(fontsize=7, framealpha=0.8)


def _offset(number: int, count: int) -> float:
    return (number - (count - 1) / 2) * 0.8 / count


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _name(run: RunErrors) -> str:
    return run.predictions.name
