"""Does motion help? Draw ambiguous videos, train DSFNet's variants and MICML alike, compare.

    python projects/MICML/tools/run_study.py --output output/motion_study
    python projects/MICML/tools/run_study.py --output output/short steps=50 arms=static,micml
    python projects/MICML/tools/run_study.py --output output/motion_study --list

Most of the vehicles stand, are drawn by the renderer of those that move, and are not labelled; a
single frame does not tell them apart. Every variant is trained by the same recipe, seed and steps,
and scored on videos of another seed; MICML is scored with its motion module off at test, as
released, and on. Commands run one thread each; what is done is not done again, and an interrupted
command continues. The output folder gets results.jsonl (a row with provenance for each variant),
results.md with the verdict, curves.png, and under jobs/ the log, command and cost of every command.
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
    paired_differences,
    project_config,
    run_study,
    training_command,
    write_report,
)

CONFIGS = {
    "static": "dsfnet_static_small_synthetic_video.py",
    "micml": "micml_small_synthetic_video.py",
    "dsfnet": "dsfnet_small_synthetic_video.py",
    "dynamic": "dsfnet_dynamic_small_synthetic_video.py",
}
"""Arm -> its config."""
MOTION_ON = "micml_motion_on"
"""The trained ``micml`` with its motion module at test too."""
LEAST_F1 = 20.0
"""F1 in per cent that the static variant must exceed for the study to count."""
LEAST_GAIN = 10.0
"""Points of F1 by which the full model, motion off at test as released, must be better."""
METRICS = {
    "F1": "F1",
    "precision": "precision",
    "recall": "recall",
    "F1_distance5": "F1 at 0.3",
    "F1_micml": "F1, any overlap at 0.3",
    "AP50": "AP50",
}
"""Metric in ``results.json`` -> title of its column."""
_CHECKPOINTS = 4
_PROTOCOLS = "dataloader.evaluator.protocols=[distance5_best,distance5,micml]"


@dataclass(frozen=True)
class MotionSettings(StudySettings):
    """Sizes of a study.

    Attributes:
        steps: optimizer steps of every training.
        batch_size: clips per step.
        train_videos: videos to train on.
        test_videos: videos to score, of another seed.
        num_frames: frames of each video.
        size: side of the frames, pixels.
        density: density of the moving vehicles; 1 is that of RsCarData.
        standing_lanes: share of the lanes whose vehicles stand.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(CONFIGS)
    arms: tuple[str, ...] = known_arms
    steps: int = 400
    batch_size: int = 4
    train_videos: int = 32
    test_videos: int = 8
    num_frames: int = 20
    size: int = 96
    density: float = 8.0
    standing_lanes: float = 0.6


PRESETS = {"study": MotionSettings()}


def study_jobs(settings: MotionSettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    splits = (("train", settings.train_videos, 1), ("test", settings.test_videos, 2))
    jobs = [
        _drawing(settings, folder, split, videos=videos, seed=seed)
        for split, videos, seed in splits
    ]
    for seed in settings.seeds:
        jobs += [_training(settings, folder, arm, seed) for arm in settings.arms]
        if "micml" in settings.arms:
            jobs.append(_motion_on(settings, folder, seed))
    return jobs


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


def _training(settings: MotionSettings, folder: Path, arm: str, seed: int) -> Job:
    name = arm + settings.suffix(seed)
    command = training_command(
        project_config(__file__, CONFIGS[arm]),
        folder / "runs" / name,
        f"train.checkpointer.period={max(1, settings.steps // _CHECKPOINTS)}",
        _PROTOCOLS,
        *settings.overrides,
        steps=settings.steps,
        batch=settings.batch_size,
        seed=seed,
    )
    made = (f"runs/{name}/results.json", f"runs/{name}/model_final.pth")
    return Job(name, command, ("videos_train", "videos_test"), made)


def _motion_on(settings: MotionSettings, folder: Path, seed: int) -> Job:
    name, trained = (arm + settings.suffix(seed) for arm in (MOTION_ON, "micml"))
    runs = folder / "runs"
    config = project_config(__file__, CONFIGS["micml"])
    command = module_command("rsd2", "train", "--eval-only", "--config-file", config)
    command += (_PROTOCOLS, *settings.overrides)
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
        settings: sizes, which the caption names.

    Returns:
        The declaration.
    """
    return StudyReport(
        metrics=METRICS,
        baseline="static",
        caption=(
            "F1, precision and recall: centres nearer than 5 px, mean over the videos, at the "
            "score threshold with the best F1, which is chosen for each variant on the scored "
            f"videos. Training: {settings.batch_size} clips a step on {settings.train_videos} "
            f"videos; scored: {settings.test_videos} videos; {settings.num_frames} frames of "
            f"{settings.size} px each; density {settings.density:g}, "
            f"{100 * settings.standing_lanes:g} % of the lanes stand."
        ),
        course="total_loss",
        course_is_loss=True,
        columns={"score >": lambda row: f"{row['score_above']:g}"},
        details=_read_threshold,
        verdict=verdict,
    )


def _read_threshold(folder: Path, run: StudyRun) -> dict[str, float]:
    path = folder / run.folder / "inference" / "metrics_moving_objects.json"
    try:
        protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]["protocols"][0]
        return {"score_above": protocol["reported_score_above"]}
    except (OSError, json.JSONDecodeError, KeyError, IndexError) as error:
        raise StudyReportError(f"{path} cannot be read ({error!r}); run the study again") from error


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say whether motion helps as much as asked.

    Args:
        rows: rows of the report.

    Returns:
        A sentence.
    """
    f1: dict[str, list[float]] = {}
    for row in rows:
        f1.setdefault(row["arm"], []).append(row["F1"] or 0.0)
    if not {"static", "micml"} <= set(f1):
        return "The static variant and the full model were not both trained: no verdict."

    mean = {arm: sum(values) / len(values) for arm, values in f1.items()}
    known = [{**row, "F1": row["F1"] or 0.0} for row in rows]  # an undefined F1 is no better than 0
    gain = {one.arm: one.mean for one in paired_differences(known, "F1", "static")}["micml"]
    is_met = min(f1["static"]) > LEAST_F1 and gain >= LEAST_GAIN
    facts = (
        f"The static variant reaches F1 {mean['static']:.1f} (asked: above {LEAST_F1:g}), the full "
        f"model {mean['micml']:.1f} with its motion module off at test"
    )
    facts += f": {gain:+.1f} points (asked: {LEAST_GAIN:g})"
    facts += f"; with it on it reaches {mean[MOTION_ON]:.1f}." if MOTION_ON in mean else "."
    return f"{facts} {'Met' if is_met else 'Not met'}."


def plan(settings: MotionSettings, folder: Path) -> Study:
    """Make the study.

    Args:
        settings: sizes.
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
    return Study(study_jobs(settings, folder), report)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
