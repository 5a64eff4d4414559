"""Does object-aware pre-training help? Draw scenes, pre-train, fine-tune, compare.

    python projects/ObjectJEPA/tools/run_study.py --output output/jepa_study
    python projects/ObjectJEPA/tools/run_study.py --output output/short --preset short
    python projects/ObjectJEPA/tools/run_study.py --output output/jepa_study --list

From scratch, JEPA and pixel targets, which differ only in mask and target: scattered patches,
I-JEPA's blocks, patches of objects without blocks, and the recipe's mixture of blocks and objects;
and a target that stays at its random weights, which cannot collapse. All do equally many steps of
equally many images, then the same detector, labels, seed and steps, scored on scenes of another
seed. Commands run two at a time, one thread each; what
is done is not repeated, and an interrupted command continues. The output folder gets results.jsonl
(a row with provenance for each arm), results.md, curves.png, and under jobs/ the log, command and
cost of every command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from rsd2.study import (
    Job,
    Study,
    StudyRun,
    StudySettings,
    project_config,
    run_study,
    scene_jobs,
    training_command,
    write_report,
)

from .study_report import BASELINE, REPORT

_RANDOM = ("model.masks.mode=random", "model.masks.loss_set=uniform")
_BLOCKS = ("model.masks.mode=blocks", "model.masks.num_blocks=4", "model.masks.loss_set=blocks")
_SOFT = ("model.masks.mode=soft",)
_FROZEN = ("train.hooks.target.half_life=null", "train.hooks.target.start=1")
# A frozen target has learned nothing: its detector takes the encoder that learned to predict it.
_OF_CONTEXT = "train.init_inherit.file_part=context_encoder"
_PIXEL = ("model.target=pixel", "model.loss=l2", "model.predictor.out_dim=192")
PRETRAINING = {
    "blocks_latent": ("JEPA, blocks", _BLOCKS),
    "random_latent": ("JEPA, scattered patches", _RANDOM),
    "soft_latent": ("JEPA, objects", _SOFT),
    "object_latent": ("JEPA, blocks and objects", ()),
    "frozen_latent": ("frozen target, blocks and objects", _FROZEN),
    "blocks_pixel": ("pixels, blocks", (*_BLOCKS, *_PIXEL)),
    "random_pixel": ("pixels, scattered patches", (*_RANDOM, *_PIXEL)),
    "soft_pixel": ("pixels, objects", (*_SOFT, *_PIXEL)),
    "object_pixel": ("pixels, blocks and objects", _PIXEL),
}
"""Arm -> its name in the tables, and what it changes in the config of the pre-training."""
ARMS = (BASELINE, *PRETRAINING)
_PRETRAIN = "object_jepa_small_synthetic_pretrain.py"
_FINETUNE = "faster_rcnn_vit_small_synthetic_finetune.py"
_EVALUATIONS, _MEASUREMENTS = 10, 4
_CROP, _PREDICTED = 128, 96
"""Side of a crop in the config of the pre-training, and how many of its tokens are predicted."""
_COST = {
    "start": 12.0,  # of a program
    "load": 0.0036,  # of a crop
    "pretrain": 0.0135,  # of a crop of 128 pixels in a step
    "finetune": 0.044,  # of a scene of 128 pixels in a step
    "score": 0.04,  # of a held-out scene
    "measure": 0.03,  # of a held-out scene in the telemetry
}
"""CPU seconds, one thread of an AMD EPYC beside other work."""


@dataclass(frozen=True)
class ObjectJEPASettings(StudySettings):
    """Settings of a study.

    Attributes:
        train_images: number of scenes to pre-train and to fine-tune on.
        val_images: number of held-out scenes, of another seed.
        image_size: side of the scenes in pixels.
        scale: scale of the objects; see ``rsd2 synthesize --help``.
        crop_size: side of the crops of the pre-training in pixels.
        pretrain_steps: optimizer steps of every pre-training.
        pretrain_batch: number of images per step.
        finetune_steps: optimizer steps of every fine-tuning.
        finetune_batch: number of images per step.
        encoder: overrides of the encoder, ``key=value``, in both stages.
    """

    known_arms: ClassVar[tuple[str, ...]] = ARMS
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    train_images: int = 2000
    val_images: int = 120
    image_size: int = 128
    scale: float = 1.0
    crop_size: int = 128
    pretrain_steps: int = 5000
    pretrain_batch: int = 16
    finetune_steps: int = 800
    finetune_batch: int = 8
    encoder: tuple[str, ...] = ("embed_dim=96", "depth=4")


PRESETS = {
    "study": ObjectJEPASettings(),
    # Latent targets alone, from crops of half the area: two CPU hours instead of thirteen.
    "short": ObjectJEPASettings(
        arms=(
            *(BASELINE, "blocks_latent", "random_latent", "soft_latent", "object_latent"),
            "frozen_latent",
        ),
        crop_size=96,
        pretrain_steps=1500,
        pretrain_batch=8,
        finetune_steps=1000,
        finetune_batch=4,
    ),
    "quick": ObjectJEPASettings(
        train_images=12,
        val_images=4,
        pretrain_steps=2,
        pretrain_batch=4,
        finetune_steps=4,
        finetune_batch=2,
        arms=(BASELINE, "object_latent"),
        seeds=(0,),
    ),
}


def arm_title(arm: str) -> str:
    """Name an arm for the tables.

    Args:
        arm: one of `ARMS`.

    Returns:
        A few words.
    """
    return BASELINE if arm == BASELINE else PRETRAINING[arm][0]


def study_jobs(settings: ObjectJEPASettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    jobs = scene_jobs(
        folder,
        train=settings.train_images,
        val=settings.val_images,
        size=settings.image_size,
        options=("--scale", f"{settings.scale:g}"),
    )
    for seed in settings.seeds:
        for arm in settings.arms:
            jobs += [_pretraining(settings, folder, arm, seed)] if arm != BASELINE else []
            jobs.append(_finetuning(settings, folder, arm, seed))

    return jobs


def _pretraining(settings: ObjectJEPASettings, folder: Path, arm: str, seed: int) -> Job:
    name = arm + settings.suffix(seed)
    steps = settings.pretrain_steps
    period = max(1, steps // _MEASUREMENTS)
    side = settings.crop_size
    command = training_command(
        project_config(__file__, _PRETRAIN),
        folder / "pretrain" / name,
        f"dataloader.train.mapper.augmentations.0.crop_size=[{side},{side}]",
        # The same share of the tokens, whatever the size.
        f"model.masks.num_predicted={round(_PREDICTED * (side / _CROP) ** 2)}",
        f"lr_multiplier.warmup_iters={max(1, steps // 10)}",
        f"train.hooks.telemetry.period={period}",
        f"train.hooks.telemetry.num_images={min(100, settings.val_images)}",
        f"train.checkpointer.period={period}",
        *(f"model.encoder.{one}" for one in settings.encoder),
        *PRETRAINING[arm][1],
        *settings.overrides,
        steps=steps,
        batch=settings.pretrain_batch,
        seed=seed,
    )
    makes = (f"pretrain/{name}/model_final.pth", f"pretrain/{name}/telemetry.jsonl")
    return Job(f"pretrain_{name}", command, ("scenes_train", "scenes_val"), makes)


def _finetuning(settings: ObjectJEPASettings, folder: Path, arm: str, seed: int) -> Job:
    name = arm + settings.suffix(seed)
    steps = settings.finetune_steps
    period = max(1, steps // _EVALUATIONS)
    needs: tuple[str, ...] = ("scenes_train", "scenes_val")
    # From scratch: the same detector, labels, seed and steps, from random weights.
    start = None
    if arm != BASELINE:
        needs += (f"pretrain_{name}",)
        start = folder / "pretrain" / name / "model_final.pth"

    command = training_command(
        project_config(__file__, _FINETUNE),
        folder / "finetune" / name,
        f"lr_multiplier.warmup_iters={max(1, steps // 10)}",
        f"train.eval_period={period}",
        f"train.checkpointer.period={period}",
        # The rate falls to nothing, so that the last weights are as good as averaged ones.
        "train.ema.enabled=false",
        *(f"model.backbone.net.{one}" for one in settings.encoder),
        *((_OF_CONTEXT,) if arm == "frozen_latent" else ()),
        *settings.overrides,
        steps=steps,
        batch=settings.finetune_batch,
        seed=seed,
        start=start,
    )
    makes = (f"finetune/{name}/model_final.pth", f"finetune/{name}/results.json")
    return Job(f"finetune_{name}", command, needs, makes)


def plan(settings: ObjectJEPASettings, folder: Path) -> Study:
    """Make the study.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    runs = []
    for seed in settings.seeds:
        for arm in settings.arms:
            name = arm + settings.suffix(seed)
            stages = () if arm == BASELINE else (f"pretrain_{name}",)
            job = f"finetune_{name}"
            runs.append(StudyRun(arm_title(arm), f"finetune/{name}", job, stages=stages))

    report = partial(write_report, REPORT, runs, folder)
    return Study(study_jobs(settings, folder), report, cpu_minutes=budget(settings))


def budget(settings: ObjectJEPASettings) -> dict[str, float]:
    """Estimate the CPU minutes of a study, from what its jobs took with the small encoder.

    Args:
        settings: settings of the study.

    Returns:
        Kind of job -> minutes of all such jobs, and ``all``.
    """
    cost = _COST
    area = (settings.crop_size / _CROP) ** 2
    crops = settings.pretrain_steps * settings.pretrain_batch
    scenes = settings.finetune_steps * settings.finetune_batch

    measured = (_MEASUREMENTS + 1) * min(100, settings.val_images)
    once = cost["start"] + measured * cost["measure"]
    once += crops * (cost["load"] + area * cost["pretrain"])
    seconds = {"pre-training": once * len({*settings.arms} - {BASELINE}) * len(settings.seeds)}

    once = cost["start"] + _EVALUATIONS * settings.val_images * cost["score"]
    once += scenes * cost["finetune"]
    seconds["fine-tuning"] = once * len(settings.arms) * len(settings.seeds)
    seconds["all"] = sum(seconds.values())
    return {kind: value / 60 for kind, value in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
