"""Bottom-heavy against plain ResNet, with FPN and with SSPNet, on generated beaches.

    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study
    python projects/BottomHeavy/tools/run_study.py --output output/short steps=200 seeds=0,1,2
    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study --list

Draws the scenes, trains the four detectors with equal budget, freezing and seeds, measures what
each costs, and writes results.jsonl (a row with provenance for each training), results.md and
curves.png. What is done is not done again, and an interrupted command continues. Costs are measured
when the trainings are over; keep the machine quiet then.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rsd2.study import (
    Job,
    Study,
    StudyReport,
    StudyReportError,
    StudyRun,
    StudySettings,
    drawing_job,
    module_command,
    project_config,
    run_study,
    training_command,
    write_report,
)
from rsd2.study.report import format_number

CONFIGS = {
    "r18_fpn": "faster_rcnn_r18_fpn_synthetic_tiny.py",
    "r18_sspnet": "faster_rcnn_r18_sspnet_synthetic_tiny.py",
    "bh18_fpn": "faster_rcnn_bh18_fpn_synthetic_tiny.py",
    "bh18_sspnet": "faster_rcnn_bh18_sspnet_synthetic_tiny.py",
}
"""Arm -> config; the first one is the baseline, by which the study counts or not."""
_METRICS = ("AP50_tiny", "AP50_tiny1", "AP50_tiny2", "AP50_tiny3", "AP25_tiny", "AP75_tiny")
_EVALUATIONS, _LOG_PERIOD = 20, 20


@dataclass(frozen=True)
class BottomHeavySettings(StudySettings):
    """Sizes of a study.

    Attributes:
        steps: optimizer steps of every training.
        train_images: scenes to train on.
        val_images: scenes to score.
        size: height and width of the scenes, pixels.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(CONFIGS)
    arms: tuple[str, ...] = known_arms
    steps: int = 800
    train_images: int = 400
    val_images: int = 100
    size: tuple[int, ...] = (256, 320)

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        super().__post_init__()
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size is a height and a width, e.g. size=256,320, got {self.size}")


PRESETS = {"study": BottomHeavySettings()}


def study_jobs(settings: BottomHeavySettings, folder: Path) -> list[Job]:
    """List the commands that draw the scenes and train, each after those that it needs.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        The jobs; trainings differ in config and seed alone.
    """
    splits = (("train", settings.train_images, 0), ("val", settings.val_images, 1))
    jobs = [
        drawing_job(
            f"scenes_{split}",
            folder,
            f"data/synthetic_tiny/{split}",
            "annotations.json",
            images=images,
            seed=seed,
            options=("--kind", "tiny", "--size", *settings.size),
        )
        for split, images, seed in splits
    ]
    period = max(1, settings.steps // _EVALUATIONS)
    for arm, seed in _trainings(settings):
        command = training_command(
            project_config(__file__, CONFIGS[arm]),
            folder / "runs" / f"{arm}_seed{seed}",
            f"train.eval_period={period}",
            # The course has one value for each interval of the log.
            f"train.log_period={math.gcd(period, _LOG_PERIOD)}",
            f"train.checkpointer.period={period}",
            *settings.overrides,
            steps=settings.steps,
            seed=seed,
        )
        name = f"{arm}_seed{seed}"
        needs = ("scenes_train", "scenes_val")
        jobs.append(Job(name, command, needs, (f"runs/{name}/results.json",)))
    return jobs


def cost_jobs(settings: BottomHeavySettings, folder: Path) -> list[Job]:
    """List the commands that measure what the trained detectors cost.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        One for each arm, on its first seed.
    """
    jobs = []
    for arm in settings.arms:
        run, result = folder / "runs" / f"{arm}_seed{settings.seeds[0]}", f"cost_{arm}.json"
        words = ("--run", run, "--output", folder / result, "--size", *settings.size)
        command = module_command("rsd2.projects.bottom_heavy.measure_cost", *words)
        jobs.append(Job(f"cost_{arm}", command, makes=(result,)))
    return jobs


def _trainings(settings: BottomHeavySettings) -> list[tuple[str, int]]:
    return [(arm, seed) for seed in settings.seeds for arm in settings.arms]


def _read_cost(folder: Path, run: StudyRun) -> dict[str, Any]:
    path = folder / f"cost_{run.arm}.json"
    try:
        return {"cost": json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, json.JSONDecodeError) as error:
        raise StudyReportError(f"{path} cannot be read ({error}); run the study again") from error


def _pair(row: Mapping[str, Any], names: Sequence[str], unit: float) -> str:
    return " / ".join(f"{row['cost'][name] / unit:.2f}" for name in names)


def _describe_machine(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cost = rows[0]["cost"]
    return [
        "- Parameters: backbone / all; GMAC: backbone / with its pyramid; ms (median) and peak "
        f"memory: of one image of {cost['width']} x {cost['height']} px on {cost['device']}, "
        f"{cost['threads']} thread of {cost['machine']}"
    ]


REPORT = StudyReport(
    metrics={name: name for name in _METRICS},
    baseline=next(iter(CONFIGS)),
    caption="Held-out beaches.",
    course="AP50_tiny",
    least=20.0,
    flat=1.0,
    columns={
        "M parameters": lambda row: _pair(row, ("backbone_parameters", "parameters"), 1e6),
        "GMAC": lambda row: _pair(row, ("backbone_gmacs", "pyramid_gmacs"), 1),
        "ms": lambda row: format_number(row["cost"]["latency_ms"], ".0f"),
        "peak MB": lambda row: format_number(row["cost"]["peak_mb"], ".0f"),
    },
    details=_read_cost,
    appendix=_describe_machine,
)


def plan(settings: BottomHeavySettings, folder: Path) -> Study:
    """Make the study, which measures costs when the trainings are over.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    names = [(arm, f"{arm}_seed{seed}") for arm, seed in _trainings(settings)]
    runs = [StudyRun(arm, f"runs/{name}", name) for arm, name in names]
    jobs = study_jobs(settings, folder)
    return Study(jobs, partial(write_report, REPORT, runs, folder), cost_jobs(settings, folder))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
