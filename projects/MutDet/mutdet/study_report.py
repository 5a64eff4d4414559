"""Rows, table, plot and pictures of the study, from the files that its jobs left.

A row can be repeated: it names config, command, commit, seed, steps, hardware and cost. A loss
counts as flat when its mean over the last tenth of the training differs from that over the tenth
before by no more than `FLAT_PERCENT`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rsd2.data.drawing.boxes import save_figure
from rsd2.study import StudyReportError, describe_origins, read_course, read_records, read_results

FLAT_PERCENT = 3.0
_METRICS = ("AP50", "AP75", "AP")


def read_losses(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the course of a training.

    Args:
        run: output folder of ``tools/lazyconfig_train_net.py``.

    Returns:
        (iterations, total losses), both (T,), each iteration once: a resumed training repeats some.

    Raises:
        StudyReportError: the file is missing or holds no loss.
    """
    course = read_course(read_records(run), "total_loss")
    if not course:
        raise StudyReportError(f"{run / 'metrics.json'} holds no total_loss; was anything trained?")
    steps, losses = map(np.array, zip(*course))
    return steps - 1, losses


def late_change(iterations: np.ndarray, losses: np.ndarray) -> float:
    """Change of the loss within the last fifth of a training.

    Args:
        iterations: (T,) ascending.
        losses: (T,).

    Returns:
        mean over the last tenth minus mean over the tenth before it, in percent of the latter;
        nan if one of the two holds no number.
    """
    end = iterations[-1] + 1
    late = losses[iterations >= 0.9 * end]
    before = losses[(iterations >= 0.8 * end) & (iterations < 0.9 * end)]
    if not len(late) or not len(before):
        return math.nan
    return float(100 * (late.mean() / before.mean() - 1))


def read_last(run: Path, names: Sequence[str]) -> dict[str, float]:
    """Mean of logged values over the last fifth of a training.

    Args:
        run: output folder of the training.
        names: parts of the logged values' names.

    Returns:
        name -> mean, of the values that were logged.
    """
    records = read_records(run)
    end = max((record["iteration"] for record in records), default=0) + 1
    values: dict[str, list[float]] = {}
    for record in records:
        if record["iteration"] >= 0.8 * end:
            for key, value in record.items():
                if any(name in key for name in names):
                    values.setdefault(key, []).append(value)
    return {key: round(float(np.mean(found)), 4) for key, found in values.items()}


def make_row(
    run: Path, job: Mapping[str, Any], *, arm: str, fraction: float, stages: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what is known of one fine-tuning.

    Args:
        run: its output folder.
        job: its marker.
        arm: what it started from.
        fraction: share of the labels.
        stages: name -> marker of the jobs before it that are this arm's own.

    Returns:
        a row that JSON can hold.

    Raises:
        StudyReportError: results or losses are missing.
    """
    results = read_results(run)
    change = late_change(*read_losses(run))
    scores = results["results"]
    weights = "ema/bbox" if "ema/bbox" in scores else "bbox"
    return {
        "arm": arm,
        "fraction": fraction,
        **{name: scores[weights][name] for name in _METRICS},
        "raw_weights": {name: scores["bbox"][name] for name in _METRICS},
        "loss_change_percent": None if math.isnan(change) else round(change, 2),
        "loss_is_flat": abs(change) <= FLAT_PERCENT,
        "steps": results["max_iter"],
        "cpu_minutes": round(job["cpu_seconds"] / 60, 1),
        "stages_cpu_minutes": {
            name: round(marker["cpu_seconds"] / 60, 1) for name, marker in stages.items()
        },
        "attempts": job["attempts"],
        **{key: results[key] for key in ("config", "commit", "seed", "hardware", "versions")},
        "command": job["command"],
        "time": results["time"],
    }


def format_table(rows: Sequence[Mapping[str, Any]], telemetry: Mapping[str, Any]) -> str:
    """Write the rows as a Markdown table, and under it what the pre-training was made of.

    Args:
        rows: of `make_row`.
        telemetry: name -> number or mapping of numbers.

    Returns:
        Markdown.
    """
    lines = [
        "| pre-training | labels | AP50 | AP75 | AP | loss, last fifth | steps | CPU min "
        "(pre-training) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        change = row["loss_change_percent"]
        flat = "-" if change is None else f"{change:+.1f} %{', flat' * row['loss_is_flat']}"
        own = row["stages_cpu_minutes"]
        cost = f"{row['cpu_minutes']:.0f} ({sum(own.values()):.0f})" if own else None
        cells = [
            row["arm"],
            f"{100 * row['fraction']:g} %",
            *("-" if row[name] is None else f"{row[name]:.1f}" for name in _METRICS),
            flat,
            str(row["steps"]),
            cost or f"{row['cpu_minutes']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *describe_origins(rows)]
    lines += [f"- {name}: {_plain(value)}" for name, value in telemetry.items()]
    return "\n".join(lines) + "\n"


def plot_study(
    rows: Sequence[Mapping[str, Any]],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: Path,
) -> None:
    """Draw the scores as bars and the losses as curves.

    Args:
        rows: of `make_row`.
        curves: title -> (iterations, losses), see `read_losses`.
        path: PNG to write.
    """
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    fractions = sorted({row["fraction"] for row in rows})
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for place, arm in enumerate(arms):
        own = {row["fraction"]: row["AP50"] or 0.0 for row in rows if row["arm"] == arm}
        offsets = np.arange(len(fractions)) + (place - (len(arms) - 1) / 2) * 0.8 / len(arms)
        bars = axes[0].bar(
            offsets, [own.get(f, 0.0) for f in fractions], 0.8 / len(arms), label=arm
        )
        axes[0].bar_label(bars, fmt="%.1f")
    axes[0].set_xticks(range(len(fractions)), [f"{100 * f:g} % of the labels" for f in fractions])
    axes[0].set(title="AP50 on held-out scenes", ylim=(0, 100))
    for title, (iterations, losses) in curves.items():
        axes[1].plot(iterations, losses, label=title, linewidth=1)
    axes[1].set(title="total loss of the fine-tuning", xlabel="iteration", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
