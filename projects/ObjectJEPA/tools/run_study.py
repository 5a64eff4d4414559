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
from pathlib import Path

from rsd2.job_queue import JobError, JobQueue, read_markers
from rsd2.projects.object_jepa.study import (
    BASELINE,
    PRESETS,
    StudySettings,
    arm_title,
    study_jobs,
)
from rsd2.projects.object_jepa.study_report import make_row, read_telemetry, write_report
from rsd2.study import StudyReportError, change_settings

ROOT = Path(__file__).resolve().parents[3]


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="gets everything")
    add("--preset", choices=tuple(PRESETS), default="study", help="sizes (default study)")
    add("--slots", type=int, default=2, help="commands that run at once (default 2)")
    add("--list", action="store_true", help="print sizes and commands, run nothing")
    add("opts", nargs="*", metavar="NAME=VALUE", help="sizes to change, e.g. finetune_steps=500")
    return parser


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
        pretraining, cost = None, 0.0
        if arm != BASELINE:
            pretraining = folder / "pretrain" / arm
            cost = markers[f"pretrain_{arm}"]["cpu_seconds"]
            records[arm_title(arm)] = read_telemetry(pretraining)
        run, marker = folder / "finetune" / arm, markers[f"finetune_{arm}"]
        rows.append(make_row(run, marker, arm=arm_title(arm), pretraining=pretraining, cost=cost))
    return write_report(rows, folder, BASELINE, records)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 1 if a command failed, 2 for wrong arguments, 130 if interrupted.
    """
    args = get_parser().parse_intermixed_args(argv)
    try:
        if args.slots < 1:
            raise ValueError(f"--slots must be at least 1, got {args.slots}")
        settings = change_settings(PRESETS[args.preset], args.opts)
    except ValueError as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 2
    folder = args.output.absolute()  # the commands run in the repository root
    jobs = study_jobs(settings, folder)
    if args.list:
        print(settings)
        for job in jobs:
            print(f"{job.name}: {' '.join(job.command)}")
        return 0
    # one thread each: on small tensors two processes of one thread beat one process of two
    environment = {
        "DETECTRON2_DATASETS": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    try:
        JobQueue(jobs, folder, slots=args.slots, environment=environment, work_folder=ROOT).run()
        print(report(settings, folder))
    except (JobError, StudyReportError, OSError) as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_study: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
