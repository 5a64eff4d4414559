"""Does pre-training help? Draw scenes, propose and embed boxes, pre-train, fine-tune, compare.

    python projects/MutDet/tools/run_study.py --output output/study
    python projects/MutDet/tools/run_study.py --output output/short --preset demo finetune_steps=300
    python projects/MutDet/tools/run_study.py --output output/study --list

A small backbone learns to tell unlabelled crops apart and plays the part of ImageNet's for
everybody, also for training "from scratch"; boxes are proposed on the training scenes without their
labels and embedded; DETReg and MutDet pre-train the detector on them; every arm is fine-tuned by
the same config, seed and steps on the same shares of the labels, and scored on scenes of another
seed. Commands run two at a time, one thread each; what is done is not done again, and an
interrupted command continues. The output folder gets results.jsonl (a row with provenance for each
fine-tuning), results.md, curves.png, detections.png, report.html, and under jobs/ the log, command
and cost of every command.
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
    module_command,
    project_config,
    run_study,
    scene_jobs,
    training_command,
)

from .label_statistics import PAGE
from .study_report import BASELINE, PSEUDO_LABELS, write_pages

ARMS = {BASELINE: BASELINE, "detreg": "DETReg", "mutdet": "MutDet"}
"""Arm -> its name in the tables."""
_BACKBONE = "backbone/model_final.pth"
_EMBEDDER = "embedder_small_synthetic_pretrain.py"
_EMBEDDER_BATCH = 64  # crops, of the loss that compares them with each other
_FINETUNE = "mutdet_small_synthetic_finetune.py"
_PACKAGE = "rsd2.projects.mutdet"


@dataclass(frozen=True)
class MutDetSettings(StudySettings):
    """Sizes of a study.

    Attributes:
        train_images: scenes to pre-train on, and to take shares of the labels from.
        val_images: held-out scenes, of another seed.
        image_size: side of the scenes in pixels.
        embedder_steps: optimizer steps of the backbone's training on crops.
        embedder_scenes: scenes of yet another seed that the crops are taken from.
        num_clusters: number of pseudo-classes.
        embedding_dim: components of the embeddings.
        pretrain_steps: optimizer steps of DETReg and of MutDet.
        finetune_steps: optimizer steps of every fine-tuning.
        batch_size: images per step, in every training.
        fractions: shares of the labels, each in (0, 1].
        decay_at: fraction of a fine-tuning after which its rate is a tenth.
        detector: overrides of the detector, ``key=value``.
        images: held-out scenes that are drawn with what each arm finds.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(ARMS)
    arms: tuple[str, ...] = known_arms
    train_images: int = 2000
    val_images: int = 400
    image_size: int = 128
    embedder_steps: int = 600
    embedder_scenes: int = 400
    num_clusters: int = 64
    embedding_dim: int = 128
    pretrain_steps: int = 2000
    finetune_steps: int = 1500
    batch_size: int = 8
    fractions: tuple[float, ...] = (0.1, 1.0)
    decay_at: float = 0.75
    detector: tuple[str, ...] = ()
    images: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        super().__post_init__()
        if not self.fractions or any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"fractions are some of (0, 1], got {list(self.fractions)}")
        if not 0 < self.decay_at < 1:
            raise ValueError(f"decay_at lies between 0 and 1, got {self.decay_at}")


PRESETS = {
    "study": MutDetSettings(),
    "demo": MutDetSettings(
        train_images=2000,
        val_images=200,
        embedder_steps=300,
        embedder_scenes=200,
        pretrain_steps=500,
        finetune_steps=700,
        arms=("none", "mutdet"),
    ),
    "quick": MutDetSettings(
        train_images=24,
        val_images=6,
        embedder_steps=2,
        embedder_scenes=4,
        num_clusters=4,
        embedding_dim=8,
        pretrain_steps=2,
        finetune_steps=10,
        batch_size=2,
        detector=("embed_dim=32", "num_queries=10", "max_detections=20"),
    ),
}


def run_name(arm: str, fraction: float, suffix: str = "") -> str:
    """Name a fine-tuning, its job and its folder under ``finetune``.

    Args:
        arm: one of `ARMS`.
        fraction: share of the labels.
        suffix: tells the seeds apart, see `StudySettings.suffix`.

    Returns:
        A name like ``mutdet_10`` for 10 %.
    """
    return f"{arm}_{100 * fraction:g}{suffix}"


def study_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    jobs = scene_jobs(
        folder,
        train=settings.train_images,
        val=settings.val_images,
        size=settings.image_size,
    )
    jobs += _label_jobs(settings, folder)
    for seed in settings.seeds:
        arms = [arm for arm in settings.arms if arm != BASELINE]
        jobs += [_pretraining(settings, folder, arm, seed) for arm in arms]
        for fraction in sorted(settings.fractions):
            jobs += [_finetuning(settings, folder, arm, fraction, seed) for arm in settings.arms]
    return jobs


def _pretraining(settings: MutDetSettings, folder: Path, arm: str, seed: int) -> Job:
    name = arm + settings.suffix(seed)
    command = training_command(
        project_config(__file__, f"{arm}_small_synthetic_pretrain.py"),
        folder / "pretrain" / name,
        f"model.detector.num_classes={settings.num_clusters}",
        f"model.embedding_dim={settings.embedding_dim}",
        *(f"model.detector.{one}" for one in settings.detector),
        *settings.overrides,
        steps=settings.pretrain_steps,
        batch=settings.batch_size,
        seed=seed,
        start=folder / _BACKBONE,
    )
    makes = (f"pretrain/{name}/model_final.pth",)
    return Job(f"pretrain_{name}", command, ("embedder", "embeddings"), makes)


def _finetuning(
    settings: MutDetSettings, folder: Path, arm: str, fraction: float, seed: int
) -> Job:
    name = run_name(arm, fraction, settings.suffix(seed))
    pretraining = arm + settings.suffix(seed)
    # "From scratch" starts from the backbone that the others were pre-trained with.
    start, inherit, need = (
        (_BACKBONE, "train.init_inherit.parts=[backbone]", "embedder")
        if arm == BASELINE
        else (
            f"pretrain/{pretraining}/model_final.pth",
            "train.init_inherit.averaged=true",
            f"pretrain_{pretraining}",
        )
    )
    command = training_command(
        project_config(__file__, _FINETUNE),
        folder / "finetune" / name,
        f"dataloader.train.dataset.fraction={fraction:g}",
        f"lr_multiplier.scheduler.milestones=[{round(100 * settings.decay_at)}]",
        "lr_multiplier.scheduler.num_updates=100",
        *(f"model.{one}" for one in settings.detector),
        inherit,
        *settings.overrides,
        steps=settings.finetune_steps,
        batch=settings.batch_size,
        seed=seed,
        start=folder / start,
    )
    makes = (f"finetune/{name}/model_final.pth", f"finetune/{name}/results.json")
    return Job(f"finetune_{name}", command, ("scenes_train", "scenes_val", need), makes)


def _label_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List what all arms share: the first backbone, and boxes and embeddings to learn from."""
    images, boxes = folder / "data/synthetic/train/images", folder / "data/pseudo/boxes"
    seed = settings.seeds[0]
    embedder = training_command(
        project_config(__file__, _EMBEDDER),
        (folder / _BACKBONE).parent,
        f"dataloader.train.dataset.scenes={settings.embedder_scenes}",
        f"dataloader.train.dataset.image_size={settings.image_size}",
        f"dataloader.test.dataset.scenes={settings.val_images}",
        steps=settings.embedder_steps,
        batch=_EMBEDDER_BATCH,
        seed=seed,
    )
    proposals = module_command(
        f"{_PACKAGE}.make_pseudo_labels",
        *("--images", images, "--output", boxes, "--recall-against", "synthetic_train"),
        # One process, because this is not the only command that runs.
        *("--num-workers", 0),
    )
    embeddings = module_command(
        f"{_PACKAGE}.extract_embeddings",
        *("--boxes", boxes, "--images", images, "--output", folder / PSEUDO_LABELS),
        *("--backbone", "small", "--weights", folder / _BACKBONE, "--crop-size", 64),
        *("--dim", settings.embedding_dim, "--clusters", settings.num_clusters, "--seed", seed),
    )
    needs = ("embedder", "pseudo_boxes")
    return [
        Job("embedder", embedder, makes=(_BACKBONE,)),
        Job("pseudo_boxes", proposals, ("scenes_train",), (f"data/pseudo/boxes/{PAGE}",)),
        Job("embeddings", embeddings, needs, (f"{PSEUDO_LABELS}/{PAGE}",)),
    ]


def plan(settings: MutDetSettings, folder: Path) -> Study:
    """Make the study.

    Args:
        settings: sizes.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    runs = []
    for seed in settings.seeds:
        for fraction in sorted(settings.fractions):
            for arm in settings.arms:
                name = run_name(arm, fraction, settings.suffix(seed))
                stages = () if arm == BASELINE else (f"pretrain_{arm}{settings.suffix(seed)}",)
                group = f"{100 * fraction:g} % of the labels"
                job = f"finetune_{name}"
                runs.append(StudyRun(ARMS[arm], f"finetune/{name}", job, group, stages))
    report = partial(write_pages, runs, folder, settings.images)
    return Study(study_jobs(settings, folder), report)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
