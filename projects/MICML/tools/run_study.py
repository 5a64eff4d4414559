#!/usr/bin/env python
"""Does motion help? Draw ambiguous videos, train DSFNet's variants and MICML alike, compare.

    python projects/MICML/tools/run_study.py --output output/motion_study
    python projects/MICML/tools/run_study.py --output output/short --steps 50 --arms static micml
    python projects/MICML/tools/run_study.py --output output/motion_study --list

Most of the vehicles stand and are not labelled; a single frame does not tell them from those that
move. Every variant is trained by the same recipe, seed and steps; MICML is scored with its motion
module off at test, as released, and on. Commands run one thread each; what is done is not done
again, and an interrupted command continues. The output folder gets results.jsonl (a row with
provenance for each variant), results.md with the verdict, curves.png, and under jobs/ the log,
command and cost of every command.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rsd2.job_queue import JobError, JobQueue
from rsd2.projects.micml.study import ARMS, StudySettings, study_jobs
from rsd2.projects.micml.study_report import StudyReportError, write_report

ROOT = Path(__file__).resolve().parents[3]


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, sizes = parser.add_argument, StudySettings()
    add("--output", type=Path, required=True, metavar="DIR", help="gets everything")
    add("--slots", type=int, default=2, help="commands that run at once (default 2)")
    add("--list", action="store_true", help="print the commands, run nothing")
    add("--arms", nargs="+", choices=tuple(ARMS), default=sizes.arms, help="which variants")
    for name, text in (
        ("steps", "of every training"),
        ("batch-size", "clips per step"),
        ("seed", "of every training"),
        ("train-videos", "to train on"),
        ("test-videos", "to score"),
        ("num-frames", "of each video"),
        ("size", "side of the frames, pixels"),
        ("density", "of the vehicles; 1 is that of RsCarData"),
        ("standing-lanes", "share of the lanes whose vehicles stand"),
    ):
        value = getattr(sizes, name.replace("-", "_"))
        add(f"--{name}", type=type(value), default=value, help=f"{text} (default {value})")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of every training")
    return parser


def read_settings(args: argparse.Namespace) -> StudySettings:
    """Collect the sizes from the command line.

    Args:
        args: of the command line.

    Returns:
        the sizes.

    Raises:
        ValueError: one is impossible.
    """
    if args.slots < 1:
        raise ValueError(f"--slots must be at least 1, got {args.slots}")
    names = [field.name for field in fields(StudySettings) if hasattr(args, field.name)]
    chosen = {name: getattr(args, name) for name in names}
    return StudySettings(**{**chosen, "arms": tuple(args.arms), "overrides": tuple(args.set)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 1 if a command failed, 2 for wrong arguments, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    try:
        settings = read_settings(args)
    except ValueError as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 2
    folder = args.output.absolute()  # the commands run in the repository root
    jobs = study_jobs(settings, folder)
    if args.list:
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
        print(write_report(settings, folder))
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
