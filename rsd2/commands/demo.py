"""Try rsd2 on generated scenes: draw them, train a small detector, predict, draw what was found.

    rsd2 demo --quick                  # a minute: every step once, but a model that finds little
    rsd2 demo                          # some minutes on two idle cores: a model that finds objects
    rsd2 demo --output output/first

Nothing is loaded from anywhere. The commands of the steps are printed, and are those to use on your
own data; each leaves its log under jobs/. An interrupted demo continues when it is started again.
Look at report/predictions.png: labels beside detections.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rsd2.io.program import print_error
from rsd2.study import Job, JobError, module_command, run_jobs, scene_jobs, training_command

CONFIG = "rotated_deformable_detr_small_synthetic.py"
_SLOTS = 2  # the two splits are drawn at once


def demo_jobs(folder: Path, *, quick: bool) -> list[Job]:
    """List the commands of the demo, each after those that it needs.

    Args:
        folder: output folder, absolute.
        quick: take a minute, and few scenes and steps.

    Returns:
        The jobs.
    """
    train, val, steps, batch, threshold = (
        (48, 8, 24, 2, 0.15) if quick else (2000, 200, 700, 8, 0.3)
    )
    run, weights = folder / "train", folder / "train/model_final.pth"
    training = training_command(CONFIG, run, steps=steps, batch=batch, seed=0)
    prediction = module_command(
        "rsd2",
        "predict",
        *("--config-file", run / "config.yaml", "--weights", weights, "--ema"),
        *("--input", folder / "data/synthetic/val/images", "--output", folder / "predictions"),
        *("--score-threshold", threshold),
    )
    report = module_command(
        "rsd2",
        "report",
        *("--run", run, "--output", folder / "report", "--weights", "ema", "--images", 8),
        *("--score-threshold", threshold),
    )

    made = ("train/model_final.pth", "train/results.json")
    return [
        *scene_jobs(folder, train=train, val=val, size=128),
        Job("train", training, ("scenes_train", "scenes_val"), made),
        Job("predict", prediction, ("train",), ("predictions/detections.json",)),
        Job("report", report, ("train",), ("report/predictions.png", "report/results.md")),
    ]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The flags.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few scenes and steps, a minute")
    parser.add_argument("--output", type=Path, metavar="DIR", help="gets everything (default "
                        "output/detector_demo, or output/quick_demo)")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 if done; 1 if a command failed, with a message on stderr; 130 if interrupted.
    """
    args = parse_arguments(argv)
    name = "quick_demo" if args.quick else "detector_demo"
    folder = (args.output or Path("output") / name).absolute()

    jobs = demo_jobs(folder, quick=args.quick)
    for job in jobs:
        # As a reader would type it: the verb stands for this Python and its module.
        print(shlex.join(("rsd2", *job.command[3:])))
    try:
        run_jobs(jobs, folder, _SLOTS)
    except (JobError, OSError) as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue.", file=sys.stderr)
        return 130

    print((folder / "report/results.md").read_text(encoding="utf-8"))
    if args.quick:
        print("The scores are those of a model that has hardly learned; rsd2 demo trains longer.")
    print(f"Look at {folder / 'report/predictions.png'} and {folder / 'predictions'}.")
    return 0
