"""Rows, table and picture of the study of bottom-heavy backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rsd2.data.drawing.boxes import save_figure
from rsd2.io.files import write_atomically
from rsd2.study import (
    StudyReportError,
    change_over_last_fifth,
    describe_origins,
    read_course,
    read_records,
    read_results,
    write_rows,
)

METRICS = ("AP50_tiny", "AP50_tiny1", "AP50_tiny2", "AP50_tiny3", "AP25_tiny", "AP75_tiny")
LEAST_AP = 20.0
"""Per cent AP50_tiny that the baseline must reach for the study to count."""
FLAT = 1.0
"""Greatest change of AP50_tiny, per cent points over the last fifth, that is called flat."""


def make_row(arm: str, run: Path, cost: Path) -> dict[str, Any]:
    """Collect one training: results, course, cost, provenance.

    Args:
        arm: name of the detector.
        run: output folder of the training.
        cost: JSON file of ``measure_cost.py``.

    Returns:
        the row; ``metrics`` are those of the averaged weights if there are any (``weights``), in
        per cent, None where undefined.

    Raises:
        StudyReportError: if a file is missing or lacks a number.
    """
    results, records = read_results(run), read_records(run)
    try:
        costs = json.loads(cost.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StudyReportError(f"{run} cannot be reported: {error}") from error
    task = "ema/bbox" if "ema/bbox" in results["results"] else "bbox"
    found = results["results"].get(task, {})
    missing = [name for name in METRICS if name not in found]
    if missing:
        raise StudyReportError(f"{run / 'results.json'} has no {', '.join(missing)} in {task}")
    curve = read_course(records, f"{task}/AP50_tiny")
    origin = {key: value for key, value in results.items() if key != "results"}
    return {
        "arm": arm,
        "weights": "averaged" if task.startswith("ema") else "last",
        "metrics": {name: found[name] for name in METRICS},
        "curve": curve,
        "change_over_last_fifth": change_over_last_fifth(curve),
        "cost": costs,
        **origin,
    }


def write_report(rows: list[dict[str, Any]], folder: Path, baseline: str) -> str:
    """Write results.jsonl, results.md and curves.png.

    Args:
        rows: of :func:`make_row`.
        folder: to write to.
        baseline: arm by which the study counts.

    Returns:
        The text of results.md.
    """
    text = describe(rows, baseline)
    write_rows(rows, folder / "results.jsonl")
    write_atomically(folder / "results.md", text.encode())
    plot_curves(rows, folder / "curves.png")
    return text


def describe(rows: list[dict[str, Any]], baseline: str) -> str:
    """Tabulate the rows and say whether the study counts.

    Args:
        rows: of :func:`make_row`.
        baseline: arm that must reach ``LEAST_AP`` and be flat.

    Returns:
        Markdown.
    """
    table = []
    for row in rows:
        cost = row["cost"]
        table.append(
            [
                row["arm"],
                row["seed"],
                *(_number(row["metrics"][name]) for name in METRICS),
                _number(row["change_over_last_fifth"]),
                f"{cost['backbone_parameters'] / 1e6:.2f} / {cost['parameters'] / 1e6:.2f}",
                f"{cost['backbone_gmacs']:.2f} / {cost['pyramid_gmacs']:.2f}",
                f"{cost['latency_ms']:.0f}",
                _number(cost["peak_mb"], ".0f"),
            ]
        )
    headers = ["detector", "seed", *METRICS, "change", "M parameters", "GMAC", "ms", "peak MB"]
    first = rows[0]
    cost = first["cost"]
    lines = [
        tabulate(table, headers=headers, tablefmt="pipe", disable_numparse=True),
        "",
        f"AP in per cent after {first['max_iter']} steps, {first['weights']} weights; change: of "
        "AP50_tiny over the last fifth of the training. Parameters: backbone / all; GMAC: backbone "
        f"/ with its pyramid; ms (median) and peak memory: of one image of {cost['width']} x "
        f"{cost['height']} px on {cost['device']}, {cost['threads']} thread of "
        f"{cost['machine']}.",
        "",
        verdict([row for row in rows if row["arm"] == baseline], baseline),
        "",
        *describe_origins(rows),
    ]
    return "\n".join(lines) + "\n"


def verdict(rows: list[dict[str, Any]], baseline: str) -> str:
    """Say whether the baseline was trained enough for the comparison to count.

    Args:
        rows: of the baseline.
        baseline: its name.

    Returns:
        a sentence.
    """
    if not rows:
        return f"The baseline {baseline} was not trained: the comparison does not count."
    reached = min(row["metrics"]["AP50_tiny"] or 0.0 for row in rows)
    changes = [row["change_over_last_fifth"] for row in rows]
    flat = all(change is not None and abs(change) <= FLAT for change in changes)
    worst = max((abs(change) for change in changes if change is not None), default=None)
    course = (
        "was evaluated too seldom to tell its course"
        if worst is None
        else f"changes by {worst:.2f} over the last fifth (asked: {FLAT:g} or less)"
    )
    facts = f"{baseline} reaches AP50_tiny {reached:.2f} (asked: {LEAST_AP:g}) and {course}"
    if reached >= LEAST_AP and flat:
        return f"{facts}: the comparison counts."
    return f"{facts}: the comparison does not count; train longer."


def plot_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw AP50_tiny over the steps, and the scores by size.

    Args:
        rows: of :func:`make_row`.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = METRICS[:4]
    width = 0.8 / len(rows)
    for k, row in enumerate(rows):
        label = f"{row['arm']}, seed {row['seed']}"
        if row["curve"]:
            left.plot(*zip(*row["curve"]), label=label)
        values = [row["metrics"][name] or 0.0 for name in names]
        right.bar(np.arange(len(names)) + (k + 0.5) * width - 0.4, values, width, label=label)
    left.set(title="AP50_tiny on held-out scenes", xlabel="steps", ylabel="per cent")
    right.set(title="after the last step", ylabel="per cent")
    right.set_xticks(np.arange(len(names)), names)
    left.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def _number(value: float | None, digits: str = ".2f") -> str:
    return "-" if value is None else format(value, digits)
