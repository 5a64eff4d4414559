#!/usr/bin/env python
"""Does object-aware pre-training help? Draw scenes, pre-train, fine-tune, compare.

    python projects/ObjectJEPA/tools/run_study.py --output output/jepa_study
    python projects/ObjectJEPA/tools/run_study.py --output output/short finetune_steps=300
    python projects/ObjectJEPA/tools/run_study.py --output output/jepa_study --list

From scratch, JEPA and pixel targets, each with random and with object-aware masks: the same images,
steps and fine-tuning. Commands run two at a time, one thread each; what is done is not done again,
and an interrupted command continues. The output folder gets results.jsonl (a row with provenance
for each arm), results.md, curves.png, and under jobs/ the log, command and cost of every command.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rsd2.projects.object_jepa.study import (
    BASELINE,
    PRESETS,
    StudySettings,
    arm_title,
    study_jobs,
)
from rsd2.projects.object_jepa.study_report import make_row, read_telemetry, write_report
from rsd2.study import Study, change_settings, run_study, study_parser
from rsd2.study.job_queue import read_markers

ROOT = Path(__file__).resolve().parents[3]


def report(settings: StudySettings, folder: Path) -> str:
    """Write the report of a finished study.

    Args:
        settings: of the study.
        folder: that its jobs filled.

    Returns:
        the text of results.md.

    Raises:
        StudyReportError: what a job should have left is missing.
    """
    markers, rows, records = read_markers(folder), [], {}
    for arm in settings.arms:
        before: dict[str, Any] = {}
        if arm != BASELINE:
            before["pretraining"] = folder / "pretrain" / arm
            before["pretraining_job"] = markers[f"pretrain_{arm}"]
            records[arm_title(arm)] = read_telemetry(before["pretraining"])
        run, marker = folder / "finetune" / arm, markers[f"finetune_{arm}"]
        rows.append(make_row(run, marker, arm=arm_title(arm), **before))
    return write_report(rows, folder, BASELINE, records)


def plan(args: argparse.Namespace, folder: Path) -> Study:
    """Make the study of a command line.

    Args:
        args: of the command line.
        folder: output folder, absolute.

    Returns:
        the study.

    Raises:
        ValueError: a size is impossible.
    """
    settings = change_settings(PRESETS[args.preset], args.opts)
    jobs = study_jobs(settings, folder)
    return Study(jobs, partial(report, settings, folder), settings=settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(study_parser(__doc__, PRESETS), plan, argv, root=ROOT)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
