"""The study of motion on generated videos: its sizes, and the commands of every phase.

Videos are drawn in which most vehicles stand, by the renderer of those that move, and only the
latter are labelled: a single frame does not tell which. Every variant is trained by the same
recipe, seed and number of steps, and scored on videos of another seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsd2.study import python_command, training_command
from rsd2.study.job_queue import Job

ARMS = {
    "static": "dsfnet_static_small_synthetic_video.py",
    "micml": "micml_small_synthetic_video.py",
    "dsfnet": "dsfnet_small_synthetic_video.py",
    "dynamic": "dsfnet_dynamic_small_synthetic_video.py",
}
"""Variant -> its config in ``projects/MICML/configs``."""
MOTION_ON = "micml_motion_on"
"""The trained ``micml`` with its motion module at test too."""

_CONFIGS = "projects/MICML/configs"
_CHECKPOINTS = 4
_PROTOCOLS = "dataloader.evaluator.protocols=[distance5_best,distance5,micml]"


@dataclass(frozen=True)
class StudySettings:
    """Sizes of a study.

    Attributes:
        arms: which of `ARMS`.
        steps: of every training.
        batch_size: clips per step.
        seed: of every training.
        train_videos: to train on.
        test_videos: to score, of another seed.
        num_frames: of each video.
        size: side of the frames, pixels.
        density: of the moving vehicles; 1 is that of RsCarData.
        standing_lanes: share of the lanes whose vehicles stand.
        overrides: of every training, ``key=value``.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    steps: int = 400
    batch_size: int = 4
    seed: int = 0
    train_videos: int = 32
    test_videos: int = 8
    num_frames: int = 20
    size: int = 96
    density: float = 8.0
    standing_lanes: float = 0.6
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        wrong = [arm for arm in self.arms if arm not in ARMS]
        if wrong or not self.arms:
            raise ValueError(f"arms are some of {', '.join(ARMS)}, got {list(self.arms)}")
        for name in ("steps", "batch_size", "train_videos", "test_videos", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def study_jobs(settings: StudySettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: sizes.
        folder: output folder, absolute; the commands run in the repository root.

    Returns:
        jobs for a `JobQueue` on that folder.
    """
    jobs = [
        _videos(settings, folder, "train", settings.train_videos, seed=1),
        _videos(settings, folder, "test", settings.test_videos, seed=2),
    ]
    jobs += [_training(settings, folder, arm) for arm in settings.arms]
    if "micml" in settings.arms:
        jobs.append(_motion_on(settings, folder))
    return jobs


def _videos(settings: StudySettings, folder: Path, split: str, count: int, seed: int) -> Job:
    target = folder / "data" / "synthetic_video"
    command = python_command("tools/make_synthetic.py", "--kind", "video", "--output", target)
    command += ("--split", split, "--num-images", str(count))
    command += ("--num-frames", str(settings.num_frames), "--size", str(settings.size))
    command += ("--density", str(settings.density), "--num-workers", "0")
    command += ("--standing-lanes", str(settings.standing_lanes), "--seed", str(seed))
    made = f"data/synthetic_video/videos_{split}.json"
    return Job(f"videos_{split}", command, makes=(made,))


def _training(settings: StudySettings, folder: Path, arm: str) -> Job:
    command = training_command(
        f"{_CONFIGS}/{ARMS[arm]}",
        folder / "runs" / arm,
        steps=settings.steps,
        batch=settings.batch_size,
        seed=settings.seed,
    )
    period = max(1, settings.steps // _CHECKPOINTS)
    command += (f"train.checkpointer.period={period}", _PROTOCOLS, *settings.overrides)
    made = (f"runs/{arm}/results.json", f"runs/{arm}/model_final.pth")
    return Job(arm, command, ("videos_train", "videos_test"), made)


def _motion_on(settings: StudySettings, folder: Path) -> Job:
    runs = folder / "runs"
    command = python_command("tools/lazyconfig_train_net.py", "--eval-only")
    command += ("--config-file", f"{_CONFIGS}/{ARMS['micml']}", _PROTOCOLS, *settings.overrides)
    command += (
        f'train.output_dir="{runs / MOTION_ON}"',
        f'train.init_checkpoint="{runs / "micml" / "model_final.pth"}"',
        f"train.seed={settings.seed}",
        "model.motion_at_eval=true",
    )
    return Job(MOTION_ON, command, ("micml",), (f"runs/{MOTION_ON}/results.json",))
