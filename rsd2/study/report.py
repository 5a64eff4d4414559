"""The report of a study: a project declares metrics, columns and criterion, the rest is the same.

A row can be repeated: it names config, command, commit, seed, steps, hardware and cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rsd2.io.figures import save_figure
from rsd2.io.files import write_atomically

from .comparison import Rows, change_over_last_fifth, judge_baseline, paired_differences
from .job_queue import read_markers

Course = Sequence[tuple[int, float]]
_ORIGIN = ("config", "commit", "seed", "hardware", "versions")


class StudyReportError(RuntimeError):
    """A file of a job is missing or unreadable; the message names it."""


@dataclass(frozen=True)
class StudyRun:
    """A training or an evaluation that becomes a row of the report.

    Attributes:
        arm: name of the arm in tables.
        folder: output folder, relative to that of the study.
        job: name of its job.
        group: condition that arms must share to be compared, like the share of the labels.
        stages: names of the jobs before it that are this arm's own.
        is_trained: False for an evaluation alone, which has no course.
    """

    arm: str
    folder: str
    job: str
    group: str = ""
    stages: tuple[str, ...] = ()
    is_trained: bool = True


@dataclass(frozen=True)
class StudyReport:
    """Declaration of a project's report.

    Attributes:
        metrics: metric in ``results.json``, in percent -> title of its column; the first one is
            compared between arms.
        baseline: arm that the others are compared with.
        caption: text below the table.
        course: metric of the evaluations, or loss, whose change over the last fifth is shown.
        course_is_loss: the course is a loss; its change is shown in percent.
        least: value of the first metric, in percent, that the baseline must reach; None for no
            such criterion.
        flat: greatest change of a course that counts as flat; None if no course does.
        columns: title -> function that makes the cell of a row.
        details: makes further entries of a row from the folder of the study and the run.
        verdict: makes the sentence whether a study without ``least`` reached its aim.
        appendix: makes further lines of Markdown from the rows.
        panels: makes further plots from the rows, as title -> label -> course.
        files: names of the rows, the text and the plots in the folder of the study.
    """

    metrics: Mapping[str, str]
    baseline: str
    caption: str
    course: str
    course_is_loss: bool = False
    least: float | None = None
    flat: float | None = None
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]] = field(default_factory=dict)
    details: Callable[[Path, StudyRun], Mapping[str, Any]] = lambda folder, run: {}
    verdict: Callable[[Rows], str] | None = None
    appendix: Callable[[Rows], Sequence[str]] = lambda rows: ()
    panels: Callable[[Rows], Mapping[str, Mapping[str, Course]]] = lambda rows: {}
    files: tuple[str, str, str] = ("results.jsonl", "results.md", "curves.png")


def write_report(report: StudyReport, runs: Sequence[StudyRun], folder: Path) -> str:
    """Write the rows, the text and the plots of a finished study.

    Args:
        report: declaration of the project.
        runs: runs of the study, one at least.
        folder: output folder of the study.

    Returns:
        The text.

    Raises:
        StudyReportError: a job left no file, or its file lacks a metric.
    """
    markers = read_markers(folder)
    rows = [make_row(report, run, folder, markers) for run in runs]
    text = format_report(report, rows)

    rows_file, text_file, plots_file = (folder / name for name in report.files)
    write_rows(rows, rows_file)
    write_atomically(text_file, text)
    plot_study(report, rows, plots_file)
    return text


def make_row(
    report: StudyReport, run: StudyRun, folder: Path, markers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Collect everything known about one run.

    Args:
        report: declaration of the project.
        run: the run.
        folder: output folder of the study.
        markers: see `read_markers`.

    Returns:
        A row that JSON can hold: metrics in percent, of the averaged weights if there are any,
        None where undefined; ``course``, its ``change_over_last_fifth`` and ``is_flat``; cost, and
        the most ``attempts`` at a job, of which the last one alone is in the cost; ``details``;
        provenance.

    Raises:
        StudyReportError: a file is missing or lacks a metric.
    """
    place = folder / run.folder
    results = read_results(place)
    scores = results["results"]
    # The averaged weights are the result of a training that has them.
    task = "ema/bbox" if "ema/bbox" in scores else "bbox"
    found = scores.get(task, {})
    missing = [name for name in report.metrics if name not in found]
    if missing:
        raise StudyReportError(f"{place / 'results.json'} has no {', '.join(missing)} in {task}")

    course: list[tuple[int, float]] = []
    if run.is_trained:
        key = report.course if report.course_is_loss else f"{task}/{report.course}"
        course = read_course(read_records(place), key)
        # A metric that is undefined throughout is possible, a training without a loss is not.
        if report.course_is_loss and not course:
            path = place / "metrics.json"
            raise StudyReportError(f"{path} holds no {key}; was anything trained?")

    change = change_over_last_fifth(course, report.course_is_loss)

    job, stages = markers[run.job], {name: markers[name] for name in run.stages}
    return {
        "arm": run.arm,
        "group": run.group,
        "weights": "averaged" if task.startswith("ema") else "last",
        **{name: _number_or_none(found[name]) for name in report.metrics},
        "raw_weights": {
            name: _number_or_none(scores.get("bbox", {}).get(name)) for name in report.metrics
        },
        "course": course,
        "change_over_last_fifth": change,
        "is_flat": report.flat is not None and change is not None and abs(change) <= report.flat,
        # An evaluation alone has no length, but that of the training whose weights it read.
        "steps": results.get("max_iter", results.get("iteration")),
        "attempts": max(marker["attempts"] for marker in (job, *stages.values())),
        "cpu_minutes": round(job["cpu_seconds"] / 60, 1),
        "stages_cpu_minutes": {
            name: round(marker["cpu_seconds"] / 60, 1) for name, marker in stages.items()
        },
        **report.details(folder, run),
        **{key: results[key] for key in _ORIGIN},
        "command": job["command"],
        "time": results["time"],
    }


def format_report(report: StudyReport, rows: Rows) -> str:
    """Tabulate the rows, with a verdict on the comparison.

    Args:
        report: declaration of the project.
        rows: rows of `make_row`, one at least.

    Returns:
        Markdown.
    """
    # A column that is the same in every row only widens the table.
    grouped = any(row["group"] for row in rows)
    seeded = len({row["seed"] for row in rows}) > 1
    staged = any(row["stages_cpu_minutes"] for row in rows)

    headers = ["arm", *["group"] * grouped, *["seed"] * seeded, *report.metrics.values()]
    headers += ["change, last fifth", *report.columns, "steps"]
    headers += ["CPU min (pre-training)" if staged else "CPU min"]

    table = []
    for row in rows:
        cells = [row["arm"], *[row["group"]] * grouped, *[row["seed"]] * seeded]
        cells += [format_number(row[name]) for name in report.metrics]
        cells += [_format_change(report, row), *(cell(row) for cell in report.columns.values())]
        cells += [row["steps"], format_number(row["cpu_minutes"])]
        own = row["stages_cpu_minutes"]
        cells[-1] += f" ({sum(own.values()):.1f})" if own else ""
        table.append(cells)

    lines = [format_table(table, headers), ""]

    metric = next(iter(report.metrics))
    verdict = report.verdict(rows) if report.verdict else ""
    if report.least is not None and report.flat is not None:
        verdict = judge_baseline(
            rows, report.baseline, metric, least=report.least, flat=report.flat
        )

    unit = "percent of the" if report.course_is_loss else "points of"
    lines += [
        f"{report.caption} Scores in percent, of the {rows[0]['weights']} weights; change: "
        f"{unit} {report.course}, by a line fitted to the last fifth of the training.",
        "",
        *([verdict, ""] if verdict else ()),
        *_format_differences(rows, metric, report.baseline),
        *report.appendix(rows),
    ]
    lines += [
        f"- {row_label(row, rows)}: a training was started {row['attempts']} times, and its CPU "
        "minutes are those of the last attempt"
        for row in rows
        if row["attempts"] > 1
    ]
    return "\n".join([*lines, *describe_origins(rows)]) + "\n"


def _format_change(report: StudyReport, row: Mapping[str, Any]) -> str:
    if row["change_over_last_fifth"] is None:
        return "-"
    unit = " %" if report.course_is_loss else ""
    return f"{row['change_over_last_fifth']:+.1f}{unit}{', flat' if row['is_flat'] else ''}"


def _format_differences(rows: Rows, metric: str, baseline: str) -> list[str]:
    """Tabulate how arms differ over seeds; one seed says nothing about that."""
    found = paired_differences(rows, metric, baseline)
    # Without a second seed there is no spread to compare a difference with.
    if all(one.interval is None for one in found):
        return []

    cells = []
    for one in found:
        low, high = one.interval or (None, None)
        bounds = f"{format_number(low, '+.2f')} to {format_number(high, '+.2f')}"
        cells.append([one.arm, one.group, f"{one.mean:+.2f}", bounds, one.pairs])
    headers = [f"{metric} minus that of {baseline}", "group", "mean", "95 % interval", "seeds"]
    return [format_table(cells, headers), ""]


def format_table(cells: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """Make a Markdown table, whose numbers stay as they were formatted.

    Args:
        cells: rows of cells.
        headers: titles of the columns.

    Returns:
        Markdown without a line end.
    """
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


def format_number(value: float | None, form: str = ".1f") -> str:
    """Format a number for a table.

    Args:
        value: the number; None or nan if undefined.
        form: format specification of a number.

    Returns:
        The text, a hyphen for an undefined number.
    """
    return "-" if _number_or_none(value) is None else format(value, form)


def row_label(row: Mapping[str, Any], rows: Rows) -> str:
    """Give a row a name that no other row has.

    Args:
        row: the row.
        rows: all rows of the report.

    Returns:
        The arm, with the group and the seed where there are several.
    """
    parts = [row["arm"], *([row["group"]] if row["group"] else [])]
    if len({one["seed"] for one in rows}) > 1:
        parts.append(f"seed {row['seed']}")
    return ", ".join(parts)


def plot_study(report: StudyReport, rows: Rows, path: Path) -> None:
    """Draw the metrics as bars, the courses of the trainings, and the panels of the project.

    Args:
        report: declaration of the project.
        rows: rows of `make_row`, one at least.
        path: PNG to write.
    """
    courses = {row_label(row, rows): row["course"] for row in rows}
    panels = {f"{report.course} of the training": courses, **report.panels(rows)}
    figure = Figure(figsize=(6 * (1 + len(panels)), 4.5), layout="constrained")
    bars, *axes = figure.subplots(1, 1 + len(panels))

    places, width = np.arange(len(report.metrics)), 0.8 / len(rows)
    for k, row in enumerate(rows):
        # An undefined metric has no bar.
        values = [row[name] or 0.0 for name in report.metrics]
        bars.bar(places + (k + 0.5) * width - 0.4, values, width, label=row_label(row, rows))
    bars.set_xticks(places, report.metrics.values(), rotation=15)
    bars.set(title="held-out data, after the last step", ylabel="percent")

    for axis, (title, lines) in zip(axes, panels.items()):
        for label, course in lines.items():
            if course:
                axis.plot(*zip(*course), label=label, linewidth=1)
        axis.set(title=title, xlabel="steps")
    # Losses fall over decades, where a linear axis hides the end of the training.
    if report.course_is_loss:
        axes[0].set_yscale("log")
    for axis in (bars, *axes):
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()

    save_figure(figure, path)


def read_records(run: Path) -> list[dict[str, Any]]:
    """Read the log of a training.

    Args:
        run: output folder of the training.

    Returns:
        The lines of its ``metrics.json``; a resumed training repeats iterations.

    Raises:
        StudyReportError: the file is missing or holds nothing.
    """
    path = run / "metrics.json"
    if not path.is_file():
        raise StudyReportError(f"{path} is missing; run the study again")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a killed training leaves half a line, and writes it again when resumed
    if not records:
        raise StudyReportError(f"{path} holds nothing; was anything trained?")
    return records


def read_course(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Take the course of a logged value.

    Args:
        records: records of :func:`read_records`.
        key: name of the value.

    Returns:
        (steps done, value) in their order, the later one of repeated iterations; values that are
        not finite are left out.
    """
    # A dict keeps the later one of repeated iterations, which is the one that the training went on
    # from.
    points = {
        int(record["iteration"]) + 1: float(record[key])
        for record in records
        if record.get(key) is not None and math.isfinite(record[key])
    }
    return sorted(points.items())


def read_results(run: Path) -> dict[str, Any]:
    """Read the last evaluation of a training with its provenance.

    Args:
        run: output folder of the training.

    Returns:
        Content of ``results.json``.

    Raises:
        StudyReportError: the file is missing or broken.
    """
    path = run / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StudyReportError(f"{path} cannot be read ({error}); run the study again") from error


def describe_origins(rows: Rows) -> list[str]:
    """Describe the origins of the rows: a study that is continued may use another commit.

    Args:
        rows: rows with ``arm``, ``commit``, ``seed``, ``config``, ``hardware`` and ``versions``.

    Returns:
        One item of a Markdown list for each origin, in the order of the rows, with the arms that
        it made.
    """
    arms: dict[str, list[str]] = {}
    for row in rows:
        origin = (
            f"commit {row['commit']}, seed {row['seed']}, torch {row['versions']['torch']}, config "
            f"{row['config']}, hardware {json.dumps(row['hardware'])}"
        )
        arms.setdefault(origin, []).append(row["arm"])
    return [f"- {', '.join(dict.fromkeys(names))}: {origin}" for origin, names in arms.items()]


def write_rows(rows: Rows, path: Path) -> None:
    """Write rows as JSON lines, complete or not at all.

    Args:
        rows: values that JSON can hold; an undefined number (nan) is written as null.
        path: file to write.
    """
    text = "".join(json.dumps(_without_nan(row), allow_nan=False) + "\n" for row in rows)
    write_atomically(path, text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return _number_or_none(value)


def _number_or_none(value: Any) -> Any:
    """Keep a value, but None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
