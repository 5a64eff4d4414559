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

from rsd2.projects.mutdet.study import PRESETS, study_jobs
from rsd2.projects.mutdet.study_pages import write_pages
from rsd2.study import Study, change_settings, run_study, study_parser

ROOT = Path(__file__).resolve().parents[3]


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
    if args.images < 1:
        raise ValueError(f"--images must be at least 1, got {args.images}")
    settings = change_settings(PRESETS[args.preset], args.opts)

    def report() -> str:
        table = write_pages(settings, folder, args.images)
        return f"{table}\nreport: {args.output / 'report.html'}"

    return Study(study_jobs(settings, folder), report, settings=settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    parser = study_parser(__doc__, PRESETS)
    help_text = "held-out scenes that are drawn (default 8)"
    parser.add_argument("--images", type=int, default=8, help=help_text)
    return run_study(parser, plan, argv, root=ROOT)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
