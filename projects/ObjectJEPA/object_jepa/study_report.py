"""Rows, table, verdict and plot of the study, from the files that its jobs left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

from .telemetry_hook import RECORDS_FILE

METRICS = ("AP50", "AP", "AP_vt", "AP_t", "AP_s", "AP_m")
"""AP of all objects and of AI-TOD's sizes: 2-8, 8-16, 16-32 and more than 32 pixels."""
TELEMETRY = (
    *("token_std", "rank_me", "cosine_in_image", "cosine_at_place", "r2_place_object"),
    *("r2_place_background", "loss_object", "loss_background", "variance_ratio"),
    *("auc", "auc_0_8", "auc_8_16", "auc_16_32", "auc_32_inf"),
)
LEAST_AP50 = 40.0
"""Per cent that the training from scratch must reach for the study to count."""
FLAT = 1.5
"""Greatest change of AP50, per cent points over the last fifth, that is called flat."""


def make_row(
    run: Path,
    job: Mapping[str, Any],
    *,
    arm: str,
    pretraining: Path | None = None,
    pretraining_job: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect what is known of one arm.

    Args:
        run: output folder of its fine-tuning.
        job: marker of that.
        arm: what the fine-tuning started from.
        pretraining: output folder of the pre-training, None if there was none.
        pretraining_job: marker of that.

    Returns:
        a row that JSON can hold: metrics in per cent of the averaged weights if there are any,
        ``course`` of AP50 over the steps and its ``change_over_last_fifth``, cost, the most
        ``attempts`` at a training, of which the last alone is in the cost, telemetry at the end of
        the pre-training, provenance.

    Raises:
        StudyReportError: a file is missing or lacks a metric.
    """
    results = read_results(run)
    task = "ema/bbox" if "ema/bbox" in results["results"] else "bbox"
    found = results["results"].get(task, {})
    missing = [name for name in METRICS if name not in found]
    if missing:
        raise StudyReportError(f"{run / 'results.json'} has no {', '.join(missing)} in {task}")
    course = read_course(read_records(run), f"{task}/AP50")
    before = pretraining_job or {"cpu_seconds": 0.0, "attempts": 0}
    return {
        "arm": arm,
        "weights": "averaged" if task.startswith("ema") else "last",
        **{name: found[name] for name in METRICS},
        "course": course,
        "change_over_last_fifth": change_over_last_fifth(course),
        "steps": results["max_iter"],
        "attempts": max(job["attempts"], before["attempts"]),
        "cpu_minutes": round(job["cpu_seconds"] / 60, 1),
        "pretraining_cpu_minutes": round(before["cpu_seconds"] / 60, 1),
        "telemetry": {} if pretraining is None else read_telemetry(pretraining)[-1],
        **{key: results[key] for key in ("config", "commit", "seed", "hardware", "versions")},
        "command": job["command"],
        "time": results["time"],
    }


def read_telemetry(pretraining: Path) -> list[dict[str, Any]]:
    """Read what the telemetry hook wrote.

    Args:
        pretraining: output folder.

    Returns:
        its records, one at least.

    Raises:
        StudyReportError: the file is missing or empty.
    """
    path = pretraining / RECORDS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        raise StudyReportError(f"{path} is missing or empty; run the study again")
    return [json.loads(line) for line in lines]


def verdict(rows: Sequence[Mapping[str, Any]], baseline: str) -> str:
    """Say whether the training from scratch went far enough for the comparison to count.

    Args:
        rows: of `make_row`.
        baseline: arm that must reach `LEAST_AP50` and be flat.

    Returns:
        a sentence.
    """
    found = [row for row in rows if row["arm"] == baseline]
    if not found:
        return f"{baseline} was not trained: the comparison does not count."
    reached, change = found[0]["AP50"] or 0.0, found[0]["change_over_last_fifth"]
    flat = change is not None and abs(change) <= FLAT
    course = (
        "was evaluated too seldom to tell its course"
        if change is None
        else f"changes by {change:+.2f} over the last fifth (asked: {FLAT:g} or less)"
    )
    facts = f"{baseline} reaches AP50 {reached:.1f} (asked: {LEAST_AP50:g}) and {course}"
    if reached >= LEAST_AP50 and flat:
        return f"{facts}: the comparison counts."
    return f"{facts}: the comparison does not count; train longer."


def format_report(rows: Sequence[Mapping[str, Any]], baseline: str) -> str:
    """Tabulate scores and telemetry, and say whether they count.

    Args:
        rows: of `make_row`, one at least.
        baseline: see `verdict`.

    Returns:
        Markdown.
    """
    headers = ["pre-training", *METRICS, "change, last fifth", "steps", "CPU min (pre-training)"]
    table = []
    for row in rows:
        numbers = [_number(row[name]) for name in METRICS]
        cost = f"{row['cpu_minutes']:.1f} ({row['pretraining_cpu_minutes']:.1f})"
        change = _number(row["change_over_last_fifth"], "+.1f")
        table.append([row["arm"], *numbers, change, row["steps"], cost])
    trained = [row for row in rows if row["telemetry"]]
    features = [
        [name, *(_number(row["telemetry"].get(name), ".3f") for row in trained)]
        for name in TELEMETRY
    ]
    alarms = [
        f"- alarm, {row['arm']}: {message}"
        for row in trained
        for message in row["telemetry"].get("alarms", ())
    ]
    again = [
        f"- {row['arm']}: a training was started {row['attempts']} times, and its CPU minutes are "
        "those of the last attempt"
        for row in rows
        if row["attempts"] > 1
    ]
    options = {"tablefmt": "pipe", "disable_numparse": True}
    lines = [
        tabulate(table, headers=headers, **options),
        "",
        f"AP in per cent, {rows[0]['weights']} weights; change: of AP50 over the last fifth of the "
        f"fine-tuning. {verdict(rows, baseline)}",
        "",
        tabulate(features, headers=["telemetry", *(row["arm"] for row in trained)], **options),
        "",
        *alarms,
        *again,
        *describe_origins(rows),
    ]
    return "\n".join(lines) + "\n"


def write_report(
    rows: Sequence[Mapping[str, Any]], folder: Path, baseline: str, records: Mapping[str, Any]
) -> str:
    """Write results.jsonl, results.md and curves.png.

    Args:
        rows: of `make_row`.
        folder: to write to.
        baseline: see `verdict`.
        records: arm -> telemetry of its pre-training, see `read_telemetry`.

    Returns:
        the text of results.md.
    """
    text = format_report(rows, baseline)
    write_rows(rows, folder / "results.jsonl")
    write_atomically(folder / "results.md", text.encode())
    plot_study(rows, records, folder / "curves.png")
    return text


def plot_study(
    rows: Sequence[Mapping[str, Any]],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
) -> None:
    """Draw AP50 over the fine-tuning, AP by size, and telemetry over the pre-training.

    Args:
        rows: of `make_row`.
        records: arm -> telemetry.
        path: PNG to write.
    """
    figure = Figure(figsize=(13, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    width = 0.8 / len(rows)
    for place, row in enumerate(rows):
        steps, values = zip(*row["course"]) if row["course"] else ((), ())
        axes[0, 0].plot(steps, values, label=row["arm"])
        sizes = [row[name] or 0.0 for name in METRICS[1:]]
        offset = (place - (len(rows) - 1) / 2) * width
        axes[0, 1].bar([i + offset for i in range(len(sizes))], sizes, width, label=row["arm"])
    axes[0, 0].set(title="AP50 of held-out scenes", xlabel="step of the fine-tuning")
    axes[0, 1].set(title="AP by size")
    axes[0, 1].set_xticks(range(len(METRICS) - 1), METRICS[1:])
    for axis, name in zip(axes[1], ("rank_me", "auc")):
        for arm, course in records.items():
            values = [float("nan") if one[name] is None else one[name] for one in course]
            axis.plot([one["iteration"] for one in course], values, label=arm, marker=".")
        axis.set(title=name, xlabel="step of the pre-training")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()
    save_figure(figure, path)


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None or value != value else format(value, form)
