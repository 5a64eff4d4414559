"""Does motion mining help? Train DSFNet, MICML and controls of its motion module alike, compare.

    python projects/MICML/tools/run_study.py --output output/motion_study
    python projects/MICML/tools/run_study.py --output output/short steps=50 arms=dsfnet,micml
    python projects/MICML/tools/run_study.py --output output/motion_study --list

A quarter of the lanes hold vehicles that stand, look like those that move, and are not labelled.
The motion module has three layers, as published; its controls add a constant, are frozen at random
weights, scan the frames in a random order, or have one layer. Two arms go on from the last weights
of DSFNet, without and with a motion module. Every static branch starts from a DLA trained on crops
of generated scenes. All arms have the same recipe, seeds and steps, and are scored on videos of
another seed, the motion module off at test, as released; MICML is scored with it on, too.

Each command runs one thread; finished jobs are not repeated, and an interrupted command continues.
The output folder gets results.jsonl (a row with provenance for each variant), results.md with
paired intervals and a verdict, curves.png, and under jobs/ the log, command and cost of every
command.
"""

from __future__ import annotations

import json
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
    paired_bootstrap,
    project_config,
    run_study,
    scene_jobs,
    training_command,
    write_report,
)
from rsd2.study.report import format_table


@dataclass(frozen=True)
class Arm:
    """A variant of the study.

    Attributes:
        config: name of its config.
        overrides: what it changes there.
        continues: arm from whose last weights of the same seed it goes on; empty for none.
    """

    config: str
    overrides: tuple[str, ...] = ()
    continues: str = ""


_MICML = "micml_small_synthetic_video.py"
_DSFNET = "dsfnet_small_synthetic_video.py"
_DYNAMIC = "dsfnet_dynamic_small_synthetic_video.py"
_MOTION = "model.dynamic.motion"
_THREE_LAYERS = f"{_MOTION}.num_layers=3"
ARMS = {
    "static": Arm("dsfnet_static_small_synthetic_video.py"),
    "dynamic": Arm(_DYNAMIC),
    "dsfnet": Arm(_DSFNET),
    "micml": Arm(_MICML, (_THREE_LAYERS,)),
    "micml_constant": Arm(_MICML, (_THREE_LAYERS, f"{_MOTION}.prior=constant")),
    "micml_random": Arm(_MICML, (_THREE_LAYERS, f"{_MOTION}.prior=random")),
    "micml_shuffled": Arm(_MICML, (_THREE_LAYERS, f"{_MOTION}.shuffled_scan=true")),
    "micml_one_layer": Arm(_MICML),
    "dsfnet_continued": Arm(_DSFNET, continues="dsfnet"),
    # Not strict, because a DSFNet has no weights of a motion module.
    "micml_continued": Arm(_MICML, (_THREE_LAYERS, "train.init_strict=false"), continues="dsfnet"),
}
MOTION_ON = "micml_motion_on"
"""The trained ``micml`` with its motion module on at test too."""
PAIRS = (
    ("micml", "dsfnet"),
    ("micml", "micml_constant"),
    ("micml", "micml_random"),
    ("micml", "micml_shuffled"),
    ("micml", "micml_one_layer"),
    ("micml", MOTION_ON),
    ("micml_continued", "dsfnet_continued"),
    ("dsfnet", "static"),
    ("dsfnet", "dynamic"),
)
"""The compared arms; the first two decide the verdict."""
METRICS = {
    "F1": "F1",
    "precision": "precision",
    "recall": "recall",
    "F1_distance5_best": "F1, best threshold",
    "F1_micml": "F1, any overlap",
    "AP50": "AP50",
}
"""Metric in ``results.json`` -> title of its column."""
STARTS = ("crops", "random")
_CHECKPOINTS = 4
_COST = {
    "start": 12.0,  # of a program
    "crop_step": 0.1,  # of the DLA
    "dsfnet": 0.1,  # of a clip of 64 x 64 pixels in a step
    "micml": 0.135,  # the same, with a motion module
    "score": 0.04,  # of a frame of the scored videos, of that size
}
"""CPU seconds, one thread of an AMD EPYC beside other work."""
# The threshold of the first one is fixed, so that nothing is chosen on the scored videos.
_PROTOCOLS = "dataloader.evaluator.protocols=[distance5,distance5_best,micml]"
_BACKBONE = "backbone"
FROM_CROPS = (
    "train.init_inherit={_target_: rsd2.weights.inheritance.Inheritance, "
    "parts: [static.backbone], file_part: backbone.net, model_part: static.backbone, "
    "pretraining_only: [head]}"
)
"""Override by which a static branch takes over the DLA of the crops."""


@dataclass(frozen=True)
class MotionSettings(StudySettings):
    """Settings of a study.

    Attributes:
        steps: number of optimizer steps of every training.
        batch_size: number of clips per step.
        train_videos: number of videos to train on.
        test_videos: number of videos to score, of another seed.
        num_frames: number of frames of each video.
        size: side of the frames, pixels.
        density: density of the moving vehicles; 1 is that of RsCarData.
        standing_lanes: share of the lanes whose vehicles stand.
        start: weights of the static branch's DLA: ``"crops"``, trained on crops of generated
            scenes, or ``"random"``.
        crop_scenes: number of scenes whose crops it is trained on.
        crop_steps: number of optimizer steps of that training.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(ARMS)
    arms: tuple[str, ...] = known_arms
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 400
    batch_size: int = 4
    train_videos: int = 32
    test_videos: int = 24
    num_frames: int = 20
    size: int = 96
    density: float = 8.0
    standing_lanes: float = 0.25
    start: str = "crops"
    crop_scenes: int = 400
    crop_steps: int = 600

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")

        for arm in self.arms:
            if ARMS[arm].continues not in ("", *self.arms):
                raise ValueError(f"{arm} goes on from {ARMS[arm].continues}; add it to the arms")


PRESETS = {"study": MotionSettings()}


def study_jobs(settings: MotionSettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    # Different seeds, so that no test video is trained on.
    splits = (("train", settings.train_videos, 1), ("test", settings.test_videos, 2))
    jobs = [
        _drawing(settings, folder, split, videos=videos, seed=seed)
        for split, videos, seed in splits
    ]

    if settings.start == "crops":
        jobs += _pretraining(settings, folder)

    for seed in settings.seeds:
        jobs += [_training(settings, folder, arm, seed) for arm in sorted(settings.arms, key=_rank)]
        if "micml" in settings.arms:
            jobs.append(_motion_on(settings, folder, seed))
    return jobs


def _rank(arm: str) -> bool:
    """Sort the arms that go on from others behind these."""
    return bool(ARMS[arm].continues)


def _drawing(settings: MotionSettings, folder: Path, split: str, *, videos: int, seed: int) -> Job:
    options = (
        *("--kind", "video", "--split", split, "--num-frames", settings.num_frames),
        *("--size", settings.size, "--density", settings.density),
        # One process, because this is not the only command that runs.
        *("--standing-lanes", settings.standing_lanes, "--num-workers", 0),
    )
    target, made = "data/synthetic_video", f"videos_{split}.json"
    return drawing_job(
        f"videos_{split}", folder, target, made, images=videos, seed=seed, options=options
    )


def _pretraining(settings: MotionSettings, folder: Path) -> list[Job]:
    """List the jobs that train the DLA of all static branches on crops of scenes."""
    validation = max(1, settings.crop_scenes // 10)
    jobs = scene_jobs(folder, train=settings.crop_scenes, val=validation, size=128)
    # One start for all seeds: the arms of a pair differ in nothing but their parts.
    command = training_command(
        project_config(__file__, "dla34_small_synthetic_crops.py"),
        folder / "runs" / _BACKBONE,
        steps=settings.crop_steps,
        seed=settings.seeds[0],
    )
    needs = tuple(job.name for job in jobs)
    return [*jobs, Job(_BACKBONE, command, needs, (f"runs/{_BACKBONE}/model_final.pth",))]


def _training(settings: MotionSettings, folder: Path, arm: str, seed: int) -> Job:
    name, chosen = arm + settings.suffix(seed), ARMS[arm]
    needs, overrides = ["videos_train", "videos_test"], list(chosen.overrides)
    if chosen.continues:
        needs.append(chosen.continues + settings.suffix(seed))
    # The dynamic variant has no static branch that could start from anything.
    elif settings.start == "crops" and chosen.config != _DYNAMIC:
        needs.append(_BACKBONE)
        overrides.append(FROM_CROPS)

    has_start = len(needs) > 2
    command = training_command(
        project_config(__file__, chosen.config),
        folder / "runs" / name,
        f"train.checkpointer.period={max(1, settings.steps // _CHECKPOINTS)}",
        _PROTOCOLS,
        *overrides,
        *settings.overrides,
        steps=settings.steps,
        batch=settings.batch_size,
        seed=seed,
        start=folder / "runs" / needs[-1] / "model_final.pth" if has_start else None,
    )

    made = (f"runs/{name}/results.json", f"runs/{name}/model_final.pth")
    return Job(name, command, tuple(needs), made)


def _motion_on(settings: MotionSettings, folder: Path, seed: int) -> Job:
    # An evaluation only: the same weights, with the motion module running.
    name, trained = (arm + settings.suffix(seed) for arm in (MOTION_ON, "micml"))
    runs = folder / "runs"
    config = project_config(__file__, ARMS["micml"].config)
    command = module_command("rsd2", "train", "--eval-only", "--config-file", config)
    command += (_PROTOCOLS, *ARMS["micml"].overrides, *settings.overrides)
    command += (
        f'train.output_dir="{runs / name}"',
        f'train.init_checkpoint="{runs / trained / "model_final.pth"}"',
        f"train.seed={seed}",
        "model.motion_at_eval=true",
    )
    return Job(name, command, (trained,), (f"runs/{name}/results.json",))


def study_report(settings: MotionSettings) -> StudyReport:
    """Declare the report.

    Args:
        settings: settings, which the caption names.

    Returns:
        The declaration.
    """
    return StudyReport(
        metrics=METRICS,
        baseline="dsfnet",
        caption=(
            "F1, precision and recall: centres nearer than 5 px, score above 0.3, mean over the "
            "videos; the best of twelve thresholds is chosen for each variant on the scored "
            f"videos. Training: {settings.batch_size} clips a step on {settings.train_videos} "
            f"videos; scored: {settings.test_videos} videos; {settings.num_frames} frames of "
            f"{settings.size} px each; density {settings.density:g}, "
            f"{100 * settings.standing_lanes:g} % of the lanes stand. Static branches start from "
            f"{settings.start} weights; an arm that goes on has had twice the steps."
        ),
        course="total_loss",
        course_is_loss=True,
        details=_read_videos,
        verdict=verdict,
        appendix=compare_pairs,
    )


def _read_videos(folder: Path, run: StudyRun) -> dict[str, dict[str, float]]:
    """Read the F1 of each video, in percent."""
    path = folder / run.folder / "inference" / "metrics_moving_objects.json"
    try:
        protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]["protocols"][0]
        (sweep,) = protocol["by_score"]
        return {"videos": {name: rates["F1"] for name, rates in sweep["videos"].items()}}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StudyReportError(f"{path} cannot be read ({error!r}); run the study again") from error


def compare_pairs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tabulate the differences of `PAIRS` with intervals over videos and seeds.

    Args:
        rows: rows of the report.

    Returns:
        Lines of Markdown; none if no pair was trained.
    """
    cells = []
    for arm, other in PAIRS:
        one = paired_bootstrap(rows, "videos", arm, other)
        if one is not None and one.interval is not None:
            low, high = one.interval
            bounds = f"{low:+.2f} to {high:+.2f}"
            cells.append([arm, other, f"{one.mean:+.2f}", bounds, one.pairs, one.items])

    headers = ["F1 of", "minus that of", "mean", "95 % interval", "seeds", "videos"]
    return [format_table(cells, headers), ""] if cells else []


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Decide whether the mining of motion helps, over DSFNet and over a constant in its place.

    Args:
        rows: rows of the report.

    Returns:
        A sentence.
    """
    facts, is_better = [], []
    for arm, other in PAIRS[:2]:
        one = paired_bootstrap(rows, "videos", arm, other)
        if one is None or one.interval is None:
            return f"{arm} and {other} were not both trained: no verdict."
        low, high = one.interval
        facts.append(f"{one.mean:+.1f} points of F1 ({low:+.1f} to {high:+.1f}) over {other}")
        is_better.append(low > 0)

    end = "mining helps" if all(is_better) else "that mining helps is not shown"
    return f"The full model has {' and '.join(facts)}: {end}."


def plan(settings: MotionSettings, folder: Path) -> Study:
    """Make the study.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    arms = [*settings.arms, *([MOTION_ON] if "micml" in settings.arms else [])]
    runs = [
        StudyRun(arm, f"runs/{name}", name, is_trained=arm != MOTION_ON)
        for seed in settings.seeds
        for arm, name in ((arm, arm + settings.suffix(seed)) for arm in arms)
    ]
    report = partial(write_report, study_report(settings), runs, folder)
    return Study(study_jobs(settings, folder), report, cpu_minutes=budget(settings))


def budget(settings: MotionSettings) -> dict[str, float]:
    """Estimate the CPU minutes of a study, from what its trainings took at 64 pixels.

    Args:
        settings: settings of the study.

    Returns:
        Kind of job -> minutes of all such jobs, and ``all``.
    """
    area = (settings.size / 64) ** 2
    clips = settings.steps * settings.batch_size
    scored = settings.test_videos * settings.num_frames
    once = _COST["start"] + scored * area * _COST["score"]

    trainings = sum(
        once + clips * area * _COST["micml" if arm.startswith("micml") else "dsfnet"]
        for arm in settings.arms
    )
    seconds = {"trainings": trainings * len(settings.seeds)}
    if settings.start == "crops":
        seconds["backbone"] = _COST["start"] + settings.crop_steps * _COST["crop_step"]
    if "micml" in settings.arms:
        seconds["motion module on"] = once * len(settings.seeds)
    seconds["all"] = sum(seconds.values())
    return {kind: value / 60 for kind, value in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
