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
from functools import partial
from pathlib import Path

from rsd2.projects.micml.study import ARMS, StudySettings, study_jobs
from rsd2.projects.micml.study_report import write_report
from rsd2.study import Study, run_study, study_parser

ROOT = Path(__file__).resolve().parents[3]


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = study_parser(__doc__)
    add, sizes = parser.add_argument, StudySettings()
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
    names = [field.name for field in fields(StudySettings) if hasattr(args, field.name)]
    chosen = {name: getattr(args, name) for name in names}
    settings = StudySettings(**{**chosen, "arms": tuple(args.arms), "overrides": tuple(args.set)})
    jobs = study_jobs(settings, folder)
    return Study(jobs, partial(write_report, settings, folder), settings=settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(get_parser(), plan, argv, root=ROOT)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
