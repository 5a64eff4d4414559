#!/usr/bin/env python
"""Bottom-heavy against plain ResNet, with FPN and with SSPNet, on generated beaches.

    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study
    python projects/BottomHeavy/tools/run_study.py --output output/short --steps 200
    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study --list

Draws the scenes, trains the four detectors with equal budget, freezing and seeds by
tools/lazyconfig_train_net.py, measures what each costs, and writes results.jsonl (a row with
provenance for each training), results.md and curves.png. What is done is not done again, and an
interrupted command continues. Costs are measured when the trainings are over; keep the machine
quiet then.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from study_report import make_row, write_report

from rsd2.study import Study, run_study, study_parser
from rsd2.study.job_queue import Job

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "projects" / "BottomHeavy" / "configs"
ARMS = {
    "r18_fpn": "faster_rcnn_r18_fpn_synthetic_tiny.py",
    "r18_sspnet": "faster_rcnn_r18_sspnet_synthetic_tiny.py",
    "bh18_fpn": "faster_rcnn_bh18_fpn_synthetic_tiny.py",
    "bh18_sspnet": "faster_rcnn_bh18_sspnet_synthetic_tiny.py",
}
"""Name -> config; the first is the baseline, by which the study counts or not."""
_EVALUATIONS, _LOG_PERIOD = 20, 20


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = study_parser(__doc__)
    add = parser.add_argument
    add("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS), help="which detectors")
    add("--seeds", type=int, nargs="+", default=[0], help="of the trainings (default 0)")
    add("--steps", type=int, default=800, help="of every training (default 800)")
    add("--train-images", type=int, default=400, help="scenes to train on (default 400)")
    add("--val-images", type=int, default=100, help="scenes to score (default 100)")
    add("--size", type=int, nargs=2, default=[256, 320], help="of the scenes: height width")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every training")
    return parser


def scene_jobs(args: argparse.Namespace, folder: Path) -> list[Job]:
    """Commands that draw the scenes.

    Args:
        args: of the command line.
        folder: of the study.

    Returns:
        one for each split.
    """
    jobs = []
    for seed, (split, count) in enumerate((("train", args.train_images), ("val", args.val_images))):
        target = folder / "data" / "synthetic_tiny" / split
        words = ["tools/make_synthetic.py", "--kind", "tiny", "--output", str(target)]
        words += ["--num-images", str(count), "--seed", str(seed), "--size", *map(str, args.size)]
        made = f"data/synthetic_tiny/{split}/annotations.json"
        jobs.append(Job(f"scenes_{split}", (sys.executable, *words), makes=(made,)))
    return jobs


def training_jobs(args: argparse.Namespace, folder: Path) -> list[Job]:
    """Commands that train: the same settings for all, but model and seed.

    Args:
        args: of the command line.
        folder: of the study.

    Returns:
        one for each arm and seed.
    """
    period = max(1, args.steps // _EVALUATIONS)
    jobs = []
    for seed in args.seeds:
        for arm in args.arms:
            run = folder / "runs" / f"{arm}_seed{seed}"
            settings = [
                f"train.output_dir={run}",
                f"train.seed={seed}",
                f"train.max_iter={args.steps}",
                f"train.eval_period={period}",
                # metrics.json has one value for each interval of the log
                f"train.log_period={math.gcd(period, _LOG_PERIOD)}",
                f"train.checkpointer.period={period}",
                *args.set,
            ]
            config = (CONFIGS / ARMS[arm]).relative_to(ROOT).as_posix()
            words = ("tools/lazyconfig_train_net.py", "--resume", "--config-file", config)
            jobs.append(
                Job(
                    run.name,
                    (sys.executable, *words, *settings),
                    needs=("scenes_train", "scenes_val"),
                    makes=(f"runs/{run.name}/results.json",),
                )
            )
    return jobs


def cost_jobs(args: argparse.Namespace, folder: Path) -> list[Job]:
    """Commands that measure what the trained detectors cost.

    Args:
        args: of the command line.
        folder: of the study.

    Returns:
        one for each arm, on its first seed.
    """
    tool = "projects/BottomHeavy/tools/measure_cost.py"
    jobs = []
    for arm in args.arms:
        run, result = folder / "runs" / f"{arm}_seed{args.seeds[0]}", folder / f"cost_{arm}.json"
        words = (tool, "--run", str(run), "--output", str(result), "--size", *map(str, args.size))
        jobs.append(Job(f"cost_{arm}", (sys.executable, *words), makes=(result.name,)))
    return jobs


def plan(args: argparse.Namespace, folder: Path) -> Study:
    """Make the study of a command line.

    Args:
        args: of the command line.
        folder: output folder, absolute.

    Returns:
        the study, which measures costs when the trainings are over.

    Raises:
        ValueError: a number is below 1.
    """
    if min(args.steps, args.train_images, args.val_images) < 1:
        raise ValueError("--steps and numbers of images must be 1 or more")
    trainings = training_jobs(args, folder)

    def report() -> str:
        rows = []
        for job in trainings:
            arm = job.name.rsplit("_seed", 1)[0]
            rows.append(make_row(arm, folder / "runs" / job.name, folder / f"cost_{arm}.json"))
        return write_report(rows, folder, baseline=next(iter(ARMS)))

    return Study([*scene_jobs(args, folder), *trainings], report, cost_jobs(args, folder))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(get_parser(), plan, argv, root=ROOT)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the commands too
    sys.exit(main())
