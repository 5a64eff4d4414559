"""Rows, table, verdict and picture of the study of motion, from the files that its jobs left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rsd2.data.drawing.boxes import save_figure
from rsd2.io.files import write_atomically
from rsd2.study import (
    StudyReportError,
    describe_origins,
    read_course,
    read_records,
    read_results,
    write_rows,
)
from rsd2.study.job_queue import read_markers

from .study import MOTION_ON, StudySettings

LEAST_F1 = 20.0
"""F1 in per cent that the static variant must exceed for the study to count."""
LEAST_GAIN = 10.0
"""Points of F1 by which the full model, motion off at test as released, must be better."""
METRICS = ("F1", "precision", "recall", "F1_distance5", "F1_micml", "AP50")


def make_row(run: Path, marker: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Collect what is known of one variant.

    Args:
        run: output folder of its training or evaluation.
        marker: of its job.
        arm: its name.

    Returns:
        a row that JSON can hold; metrics in per cent, None where undefined.

    Raises:
        StudyReportError: results are missing.
    """
    metrics = run / "inference" / "metrics_moving_objects.json"
    results = read_results(run)
    try:
        protocol = json.loads(metrics.read_text(encoding="utf-8"))["protocol"]["protocols"][0]
        scores = results["results"]["bbox"]
        values = {name: scores[name] for name in METRICS}
    except (OSError, json.JSONDecodeError, KeyError, IndexError) as error:
        raise StudyReportError(f"{run} cannot be reported: {error!r}; run it again") from error
    return {
        "arm": arm,
        **{name: None if value != value else value for name, value in values.items()},
        "score_above": protocol["reported_score_above"],
        "steps": results["iteration"],
        "cpu_minutes": round(marker["cpu_seconds"] / 60, 1),
        "attempts": marker["attempts"],
        **{key: results[key] for key in ("config", "commit", "seed", "hardware", "versions")},
        "command": marker["command"],
        "time": results["time"],
    }


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say whether motion helps as much as asked.

    Args:
        rows: of `make_row`.

    Returns:
        a sentence.
    """
    f1 = {row["arm"]: row["F1"] or 0.0 for row in rows}
    if not {"static", "micml"} <= set(f1):
        return "The static variant and the full model were not both trained: no verdict."
    gain, enough = f1["micml"] - f1["static"], f1["static"] > LEAST_F1
    facts = (
        f"The static variant reaches F1 {f1['static']:.1f} (asked: above {LEAST_F1:g}), the full "
        f"model {f1['micml']:.1f} with its motion module off at test"
    )
    facts += f": {gain:+.1f} points (asked: {LEAST_GAIN:g})"
    facts += f"; with it on it reaches {f1[MOTION_ON]:.1f}." if MOTION_ON in f1 else "."
    return f"{facts} {'Met' if enough and gain >= LEAST_GAIN else 'Not met'}."


def format_table(rows: Sequence[Mapping[str, Any]], settings: StudySettings) -> str:
    """Write the rows as Markdown with what they are made of.

    Args:
        rows: of `make_row`, at least one.
        settings: sizes.

    Returns:
        Markdown.
    """
    lines = [
        "| variant | F1 | precision | recall | score > | F1 at 0.3 | F1, any overlap at 0.3 | AP50 "
        "| CPU min |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shown = ["-" if row[name] is None else f"{row[name]:.1f}" for name in METRICS]
        cells = [row["arm"], *shown[:3], f"{row['score_above']:g}", *shown[3:]]
        lines.append(f"| {' | '.join([*cells, format(row['cpu_minutes'], '.1f')])} |")
    lines += [
        "",
        verdict(rows),
        "",
        "F1, precision and recall in per cent: centres nearer than 5 px, mean over the videos, at "
        "the score threshold with the best F1, which is chosen for each variant on the scored "
        "videos.",
        f"Training: {rows[0]['steps']} steps of {settings.batch_size} clips on "
        f"{settings.train_videos} videos; scored: {settings.test_videos} videos; "
        f"{settings.num_frames} frames of {settings.size} px each; density {settings.density:g}, "
        f"{100 * settings.standing_lanes:g} % of the lanes stand.",
        "",
        *describe_origins(rows),
    ]
    return "\n".join(lines) + "\n"


def write_report(settings: StudySettings, folder: Path) -> str:
    """Write results.jsonl, results.md and curves.png.

    Args:
        settings: sizes.
        folder: of the study, whose jobs are done.

    Returns:
        the text of results.md.

    Raises:
        StudyReportError: a result is missing.
    """
    markers = read_markers(folder)
    arms = [*settings.arms, *([MOTION_ON] if "micml" in settings.arms else [])]
    rows = [make_row(folder / "runs" / arm, markers[arm], arm) for arm in arms]
    text = format_table(rows, settings)
    write_rows(rows, folder / "results.jsonl")
    write_atomically(folder / "results.md", text.encode())
    runs = {arm: folder / "runs" / arm for arm in settings.arms}
    losses = {arm: read_course(read_records(run), "total_loss") for arm, run in runs.items()}
    plot_study(rows, losses, folder / "curves.png")
    return text


def plot_study(
    rows: Sequence[Mapping[str, Any]], losses: Mapping[str, list[tuple[int, float]]], path: Path
) -> None:
    """Draw the scores as bars and the losses as curves.

    Args:
        rows: of `make_row`.
        losses: variant -> its course, see `rsd2.study.read_course`.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, name in enumerate(("F1", "precision", "recall")):
        values = [row[name] or 0.0 for row in rows]
        bars = left.bar(np.arange(len(rows)) + 0.27 * (place - 1), values, 0.27, label=name)
        left.bar_label(bars, fmt="%.0f")
    left.set_xticks(np.arange(len(rows)), [row["arm"] for row in rows])
    left.set(title="moving vehicles within 5 px, per cent", ylim=(0, 105))
    for arm, course in losses.items():
        right.plot(*zip(*course), label=arm, linewidth=1)
    right.set(title="total loss of the training", xlabel="steps", yscale="log")
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    save_figure(figure, path)
