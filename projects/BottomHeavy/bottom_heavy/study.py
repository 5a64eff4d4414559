"""Compare bottom-heavy with plain ResNets, with FPN and with SSPNet, on generated beaches.

The bottom-heavy form differs from the plain one in its stem and in where its blocks are: two arms
have one of both each. Two more spend its time otherwise: on wider layers, and on larger images.

    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study
    python projects/BottomHeavy/tools/run_study.py --output output/short steps=200 seeds=0,1,2
    python projects/BottomHeavy/tools/run_study.py --output output/tiny_study --list

Draws the scenes, trains the detectors with equal budget, freezing and seeds, measures what
each costs, and writes results.jsonl (a row with provenance for each training), results.md and
curves.png. Finished jobs are not repeated, and an interrupted command continues. Costs are measured
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
from rsd2.study.report import format_number, format_table

_PLAIN, _BOTTOM_HEAVY = (
    "faster_rcnn_r18_{}_synthetic_tiny.py",
    "faster_rcnn_bh18_{}_synthetic_tiny.py",
)


@dataclass(frozen=True)
class Arm:
    """A detector of the study.

    Attributes:
        config: name of its config.
        overrides: what it changes there.
        scale: sides of the images that the detector sees, relative to the drawn ones.
    """

    config: str
    overrides: tuple[str, ...] = ()
    scale: float = 1.0

    def image_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the height and width that the detector sees, in pixels, of drawn ones."""
        return tuple(round(side * self.scale) for side in size)


_BACKBONE = "model.backbone.bottom_up"
ARMS = {
    "r18_fpn": Arm(_PLAIN.format("fpn")),
    "r18_width40_fpn": Arm(_PLAIN.format("fpn"), (f"{_BACKBONE}.width=40",)),
    "r18_larger_fpn": Arm(_PLAIN.format("fpn"), scale=1.25),
    "depth_only_fpn": Arm(_PLAIN.format("fpn"), (f"{_BACKBONE}.depths=[3,2,2,1]",)),
    "stem_only_fpn": Arm(_BOTTOM_HEAVY.format("fpn"), (f"{_BACKBONE}.depths=[2,2,2,2]",)),
    "bh18_fpn": Arm(_BOTTOM_HEAVY.format("fpn")),
    "r18_sspnet": Arm(_PLAIN.format("sspnet")),
    "bh18_sspnet": Arm(_BOTTOM_HEAVY.format("sspnet")),
}
"""The first one is the baseline, whose score decides whether the study counts."""
_METRICS = ("AP50_tiny", "AP50_tiny1", "AP50_tiny2", "AP50_tiny3", "AP25_tiny", "AP75_tiny")
_EVALUATIONS, _LOG_PERIOD = 10, 20
"""Evaluations of a training, of which the last fifth has three, and steps between two log lines."""
_COST = {
    "start": 12.0,  # of a program
    "step": 0.41,  # of four images of 192 x 256 pixels, mean of the arms with FPN
    "score": 0.04,  # of a held-out image of that size
    "sspnet": 1.3,  # a factor
}
"""CPU seconds, one thread of an AMD EPYC."""


@dataclass(frozen=True)
class BottomHeavySettings(StudySettings):
    """Settings of a study.

    Attributes:
        steps: number of optimizer steps of every training.
        train_images: number of scenes to train on.
        val_images: number of scenes to score.
        size: height and width of the scenes, pixels.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(ARMS)
    arms: tuple[str, ...] = known_arms
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 800
    train_images: int = 400
    val_images: int = 100
    size: tuple[int, ...] = (256, 320)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size is a height and a width, e.g. size=256,320, got {self.size}")


PRESETS = {"study": BottomHeavySettings()}


def study_jobs(settings: BottomHeavySettings, folder: Path) -> list[Job]:
    """List the commands that draw the scenes and train, each after those that it needs.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The jobs; the trainings differ only in config and seed.
    """
    # Different seeds, so that no scene of the validation split is trained on.
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
            project_config(__file__, ARMS[arm].config),
            folder / "runs" / f"{arm}_seed{seed}",
            f"train.eval_period={period}",
            # The course has one value for each interval of the log.
            f"train.log_period={math.gcd(period, _LOG_PERIOD)}",
            f"train.checkpointer.period={period}",
            *ARMS[arm].overrides,
            *_resizing(ARMS[arm].image_size(settings.size)),
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
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        One job for each arm, on its first seed.
    """
    jobs = []
    for arm in settings.arms:
        # Seeds share an architecture and so its cost: one measurement per arm is enough.
        run, result = folder / "runs" / f"{arm}_seed{settings.seeds[0]}", f"cost_{arm}.json"
        size = ARMS[arm].image_size(settings.size)
        words = ("--run", run, "--output", folder / result, "--size", *size)
        command = module_command("rsd2.projects.bottom_heavy.measure_cost", *words)
        jobs.append(Job(f"cost_{arm}", command, makes=(result,)))
    return jobs


def _trainings(settings: BottomHeavySettings) -> list[tuple[str, int]]:
    return [(arm, seed) for seed in settings.seeds for arm in settings.arms]


def _resizing(size: Sequence[int]) -> list[str]:
    """Make the overrides that show a detector images of one size, in training and in evaluation."""
    return [
        f"dataloader.{split}.mapper.augmentations.0.{name}={value}"
        for split in ("train", "test")
        for name, value in (("short_edge_length", min(size)), ("max_size", max(size)))
    ]


def _read_cost(folder: Path, run: StudyRun) -> dict[str, Any]:
    path = folder / f"cost_{run.arm}.json"
    try:
        return {"cost": json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, json.JSONDecodeError) as error:
        raise StudyReportError(f"{path} cannot be read ({error}); run the study again") from error


def _pair(row: Mapping[str, Any], names: Sequence[str], unit: float) -> str:
    return " / ".join(f"{row['cost'][name] / unit:.2f}" for name in names)


def _compare_costs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tabulate the mean score of each arm beside its cost relative to the baseline's."""
    first, cells = rows[0]["cost"], []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        scores, cost = [row[_METRICS[0]] for row in own], own[0]["cost"]
        # A score is None where no scene holds an object that counts.
        mean = math.fsum(scores) / len(scores) if None not in scores else None
        times, compute = (cost[name] / first[name] for name in ("latency_ms", "backbone_gmacs"))
        cells.append([arm, format_number(mean), f"{times:.2f}", f"{compute:.2f}"])

    headers = ["arm", f"{_METRICS[0]}, mean of the seeds", "time", "backbone's multiply-adds"]
    return [format_table(cells, headers), "", *_describe_machine(first)]


def _describe_machine(cost: Mapping[str, Any]) -> list[str]:
    return [
        "- Parameters: backbone / all; GMAC: backbone / with its pyramid; ms (median) and peak "
        f"bytes of tensors: of one image of {cost['width']} x {cost['height']} px on "
        f"{cost['device']}, {cost['threads']} thread of {cost['machine']}; for r18_larger its "
        f"sides are {ARMS['r18_larger_fpn'].scale} times as long"
    ]


REPORT = StudyReport(
    metrics={name: name for name in _METRICS},
    baseline=next(iter(ARMS)),
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
    appendix=_compare_costs,
)


def plan(settings: BottomHeavySettings, folder: Path) -> Study:
    """Make the study, which measures costs when the trainings are over.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    names = [(arm, f"{arm}_seed{seed}") for arm, seed in _trainings(settings)]
    runs = [StudyRun(arm, f"runs/{name}", name) for arm, name in names]

    # Measured last: a training beside them would falsify times and memory.
    jobs = study_jobs(settings, folder)
    report = partial(write_report, REPORT, runs, folder)
    return Study(jobs, report, cost_jobs(settings, folder), cpu_minutes=budget(settings))


def budget(settings: BottomHeavySettings) -> dict[str, float]:
    """Estimate the CPU minutes of a study, from what its trainings took at 192 x 256 pixels.

    Args:
        settings: settings of the study.

    Returns:
        Kind of job -> minutes of all such jobs.
    """
    # Every evaluation scores the last and the averaged weights, and one more ends the training.
    scored = 2 * (_EVALUATIONS + 1) * settings.val_images
    once = settings.steps * _COST["step"] + scored * _COST["score"]

    seconds = 0.0
    for arm in settings.arms:
        area = math.prod(ARMS[arm].image_size(settings.size)) / (192 * 256)
        factor = _COST["sspnet"] if arm.endswith("sspnet") else 1.0
        seconds += len(settings.seeds) * (_COST["start"] + once * area * factor)
    return {"trainings": seconds / 60}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
