"""What the study reports: scores by size of the objects, and telemetry of the pre-training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsd2.study import StudyReport, StudyReportError, StudyRun
from rsd2.study.report import Course, format_number, format_table, row_label

from .telemetry_hook import RECORDS_FILE

BASELINE = "scratch"
"""Arm that has no pre-training."""
METRICS = ("AP50", "AP", "AP_vt", "AP_t", "AP_s", "AP_m")
"""AP of all objects and of AI-TOD's sizes: 2-8, 8-16, 16-32 and more than 32 pixels."""
TELEMETRY = (
    *("token_std", "rank_me", "cosine_in_image", "cosine_at_place", "r2_place_object"),
    *("r2_place_background", "loss_object", "loss_background", "variance_ratio"),
    *("auc", "auc_0_8", "auc_8_16", "auc_16_32", "auc_32_inf"),
)
_PLOTTED = ("rank_me", "auc")


def read_telemetry(folder: Path, run: StudyRun) -> dict[str, Any]:
    """Read what the telemetry hook wrote during the pre-training of a run.

    Args:
        folder: output folder of the study.
        run: fine-tuning, whose pre-training has the same name.

    Returns:
        ``telemetry`` at the end of the pre-training and ``telemetry_courses`` of what is plotted,
        both empty if there was none.

    Raises:
        StudyReportError: the file is missing or empty.
    """
    if not run.stages:
        return {"telemetry": {}, "telemetry_courses": {}}

    path = folder / "pretrain" / Path(run.folder).name / RECORDS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        raise StudyReportError(f"{path} is missing or empty; run the study again")
    records = [json.loads(line) for line in lines]
    courses = {
        name: [(one["iteration"], one[name]) for one in records if one[name] is not None]
        for name in _PLOTTED
    }
    return {"telemetry": records[-1], "telemetry_courses": courses}


def describe_telemetry(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tabulate the telemetry, and list its alarms.

    Args:
        rows: rows of the report.

    Returns:
        Lines of Markdown.
    """
    trained = {row_label(row, rows): row["telemetry"] for row in rows if row["telemetry"]}
    if not trained:
        return []
    table = [
        [name, *(format_number(one.get(name), ".3f") for one in trained.values())]
        for name in TELEMETRY
    ]
    alarms = [
        f"- alarm, {label}: {message}"
        for label, one in trained.items()
        for message in one.get("alarms", ())
    ]
    return [format_table(table, ["telemetry", *trained]), "", *alarms]


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Course]]:
    return {
        f"{name} of the pre-training": {
            row_label(row, rows): row["telemetry_courses"].get(name, ()) for row in rows
        }
        for name in _PLOTTED
    }


REPORT = StudyReport(
    metrics={name: name for name in METRICS},
    baseline=BASELINE,
    caption="Held-out scenes after the fine-tuning.",
    course="AP50",
    least=40.0,
    flat=1.5,
    details=read_telemetry,
    appendix=describe_telemetry,
    panels=_panels,
)
