#!/usr/bin/env python
"""Does pre-training help? Draw scenes, propose and embed boxes, pre-train, fine-tune, compare.

    python projects/MutDet/tools/run_study.py --output output/study
    python projects/MutDet/tools/run_study.py --output output/short --preset demo finetune_steps=300
    python projects/MutDet/tools/run_study.py --output output/study --list

Every arm is fine-tuned by the same config, seed and steps. Commands run two at a time, one thread
each; what is done is not done again, and an interrupted command continues. The output folder gets
results.jsonl (a row with provenance for each fine-tuning), results.md, curves.png, detections.png,
report.html, and under jobs/ the log, command and cost of every command.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rsd2.job_queue import JobError, JobQueue
from rsd2.projects.mutdet.study import PRESETS, study_jobs
from rsd2.projects.mutdet.study_pages import write_pages
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
    add("--images", type=int, default=8, help="held-out scenes that are drawn (default 8)")
    add("--list", action="store_true", help="print sizes and commands, run nothing")
    add("opts", nargs="*", metavar="NAME=VALUE", help="sizes to change, e.g. finetune_steps=500")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 1 if a command failed, 2 for wrong arguments, 130 if interrupted.
    """
    args = get_parser().parse_intermixed_args(argv)
    try:
        if args.slots < 1 or args.images < 1:
            raise ValueError(
                f"--slots and --images must be at least 1, got {args.slots} and {args.images}"
            )
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
        print(write_pages(settings, folder, args.images))
    except (JobError, StudyReportError, OSError) as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_study: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    print(f"report: {args.output / 'report.html'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
