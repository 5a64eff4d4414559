"""The study of pre-training on generated scenes: its sizes, and the commands of every phase.

Scenes are drawn; an encoder is pre-trained on the training scenes in several ways, which differ in
mask and target alone, for equally many steps of equally many images; the same detector is
fine-tuned from each of them and from scratch, with the same labels, seed and steps, and scored on
scenes of another seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsd2.study import scene_jobs, training_command
from rsd2.study.job_queue import Job

BASELINE = "scratch"
_RANDOM = ("model.masks.mode=random", "model.masks.loss_set=uniform")
_PIXEL = ("model.target=pixel", "model.loss=l2", "model.predictor.out_dim=192")
PRETRAINING = {
    "random_latent": ("JEPA, random mask", _RANDOM),
    "object_latent": ("JEPA, object mask", ()),
    "random_pixel": ("pixels, random mask", (*_RANDOM, *_PIXEL)),
    "object_pixel": ("pixels, object mask", _PIXEL),
}
"""Arm -> its name in the tables, and what it changes in the config of the pre-training."""
ARMS = (BASELINE, *PRETRAINING)
_PRETRAIN = "projects/ObjectJEPA/configs/object_jepa_small_synthetic_pretrain.py"
_FINETUNE = "projects/ObjectJEPA/configs/faster_rcnn_vit_small_synthetic_finetune.py"
_EVALUATIONS, _MEASUREMENTS = 10, 3


@dataclass(frozen=True)
class StudySettings:
    """Sizes of a study.

    Attributes:
        train_images: scenes to pre-train and to fine-tune on.
        val_images: held-out scenes, of another seed.
        image_size: side of the scenes in pixels.
        scale: of the objects; see ``tools/make_synthetic.py``.
        pretrain_steps: of every pre-training.
        pretrain_batch: images of a step.
        finetune_steps: of every arm.
        finetune_batch: images of a step.
        encoder: overrides of the encoder, ``key=value``, in both stages.
        arms: which of `ARMS`.
        seed: of all trainings.
    """

    train_images: int = 2000
    val_images: int = 120
    image_size: int = 128
    scale: float = 1.0
    pretrain_steps: int = 500
    pretrain_batch: int = 16
    finetune_steps: int = 800
    finetune_batch: int = 8
    encoder: tuple[str, ...] = ("embed_dim=96", "depth=4")
    arms: tuple[str, ...] = ARMS[:-1]
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [arm for arm in self.arms if arm not in ARMS]
        if wrong or not self.arms:
            raise ValueError(f"arms are some of {', '.join(ARMS)}, got {list(self.arms)}")
        stages = ("pretrain_steps", "pretrain_batch", "finetune_steps", "finetune_batch")
        for name in ("train_images", "val_images", "image_size", *stages):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


PRESETS = {
    "study": StudySettings(),
    "quick": StudySettings(
        train_images=12,
        val_images=4,
        pretrain_steps=2,
        pretrain_batch=4,
        finetune_steps=4,
        finetune_batch=2,
        arms=(BASELINE, "object_latent"),
    ),
}


def arm_title(arm: str) -> str:
    """Name of an arm in the tables.

    Args:
        arm: one of `ARMS`.

    Returns:
        a few words.
    """
    return BASELINE if arm == BASELINE else PRETRAINING[arm][0]


def study_jobs(settings: StudySettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: sizes.
        folder: gets everything.

    Returns:
        the jobs; paths of the project's files are relative to the repository root.
    """
    jobs = scene_jobs(
        folder,
        train=settings.train_images,
        val=settings.val_images,
        size=settings.image_size,
        options=("--scale", f"{settings.scale:g}"),
    )
    for arm in settings.arms:
        jobs += [_pretraining(settings, folder, arm)] if arm != BASELINE else []
        jobs.append(_finetuning(settings, folder, arm))
    return jobs


def _pretraining(settings: StudySettings, folder: Path, arm: str) -> Job:
    target = f"pretrain/{arm}"
    steps = settings.pretrain_steps
    period = max(1, steps // _MEASUREMENTS)
    command = training_command(
        _PRETRAIN,
        folder / target,
        steps=steps,
        batch=settings.pretrain_batch,
        seed=settings.seed,
    )
    command += (
        f"lr_multiplier.warmup_iters={max(1, steps // 10)}",
        f"train.hooks.telemetry.period={period}",
        f"train.hooks.telemetry.num_images={min(100, settings.val_images)}",
        f"train.checkpointer.period={period}",
        *(f"model.encoder.{one}" for one in settings.encoder),
    )
    makes = (f"{target}/model_final.pth", f"{target}/telemetry.jsonl")
    needs = ("scenes_train", "scenes_val")
    return Job(f"pretrain_{arm}", (*command, *PRETRAINING[arm][1]), needs, makes)


def _finetuning(settings: StudySettings, folder: Path, arm: str) -> Job:
    target = f"finetune/{arm}"
    steps = settings.finetune_steps
    period = max(1, steps // _EVALUATIONS)
    command = training_command(
        _FINETUNE,
        folder / target,
        steps=steps,
        batch=settings.finetune_batch,
        seed=settings.seed,
    )
    command += (
        f"lr_multiplier.warmup_iters={max(1, steps // 10)}",
        f"train.eval_period={period}",
        f"train.checkpointer.period={period}",
        # the rate falls to nothing, so that the last weights are as good as averaged ones
        "train.ema.enabled=false",
        *(f"model.backbone.net.{one}" for one in settings.encoder),
    )
    needs = ("scenes_train", "scenes_val")
    if arm != BASELINE:
        start = folder / f"pretrain/{arm}/model_final.pth"
        command += (f'train.init_checkpoint="{start}"',)
        needs += (f"pretrain_{arm}",)
    makes = (f"{target}/model_final.pth", f"{target}/results.json")
    return Job(f"finetune_{arm}", command, needs, makes)
