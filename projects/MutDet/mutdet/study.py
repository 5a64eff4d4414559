"""The study of pre-training on generated scenes: its sizes, and the commands of every phase.

Scenes are drawn; a small backbone learns to tell unlabelled crops apart and plays the part of
ImageNet's for everybody, also for training "from scratch"; boxes are proposed on the training
scenes without their labels and embedded; DETReg and MutDet pre-train the detector on them; every
arm is fine-tuned by the same config, seed and number of steps, on the same shares of the labels,
and scored on scenes of another seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsd2.study import python_command, scene_jobs, training_command
from rsd2.study.job_queue import Job

from .label_statistics import PAGE

ARMS = ("none", "detreg", "mutdet")
PSEUDO_LABELS = "data/pseudo/synthetic_train"
"""Folder of the boxes with embeddings, where the configs of the pre-training look for it."""
_BACKBONE = "backbone/model_final.pth"
_EMBEDDER = "projects/MutDet/configs/embedder_small_synthetic_pretrain.py"
_EMBEDDER_BATCH = 64  # crops, of the loss that compares them with each other
_FINETUNE = "projects/MutDet/configs/mutdet_small_synthetic_finetune.py"
_PRETRAIN = "projects/MutDet/configs/{}_small_synthetic_pretrain.py"
_TOOLS = "projects/MutDet/tools"


@dataclass(frozen=True)
class StudySettings:
    """Sizes of a study.

    Attributes:
        train_images: scenes to pre-train on, and to take shares of the labels from.
        val_images: held-out scenes, of another seed.
        image_size: side of the scenes in pixels.
        embedder_steps: optimizer steps of the backbone's training on crops.
        embedder_scenes: scenes of yet another seed that the crops are of.
        num_clusters: pseudo-classes.
        embedding_dim: components of the embeddings.
        pretrain_steps: of DETReg and of MutDet.
        finetune_steps: of every arm and share.
        batch_size: images per step, in every training.
        arms: which of `ARMS`.
        fractions: shares of the labels, each in (0, 1].
        decay_at: fraction of a fine-tuning after which its rate is a tenth.
        seed: of all trainings.
        detector: overrides of the detector, ``key=value``.
    """

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
    arms: tuple[str, ...] = ARMS
    fractions: tuple[float, ...] = (0.1, 1.0)
    decay_at: float = 0.75
    seed: int = 0
    detector: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [arm for arm in self.arms if arm not in ARMS]
        if wrong or not self.arms:
            raise ValueError(f"arms are some of {', '.join(ARMS)}, got {list(self.arms)}")
        if not self.fractions or any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"fractions are some of (0, 1], got {list(self.fractions)}")
        if not 0 < self.decay_at < 1:
            raise ValueError(f"decay_at lies between 0 and 1, got {self.decay_at}")


PRESETS = {
    "study": StudySettings(),
    "demo": StudySettings(
        train_images=2000,
        val_images=200,
        embedder_steps=300,
        embedder_scenes=200,
        pretrain_steps=500,
        finetune_steps=700,
        arms=("none", "mutdet"),
    ),
    "quick": StudySettings(
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


def run_name(arm: str, fraction: float) -> str:
    """Name of a fine-tuning, its job and its folder under ``finetune``.

    Args:
        arm: one of `ARMS`.
        fraction: share of the labels.

    Returns:
        e.g. ``mutdet_10`` for 10 %.
    """
    return f"{arm}_{100 * fraction:g}"


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
    )
    jobs += _label_jobs(settings, folder)
    jobs += [_pretraining(settings, folder, arm) for arm in settings.arms if arm != "none"]
    for fraction in sorted(settings.fractions):
        jobs += [_finetuning(settings, folder, arm, fraction) for arm in settings.arms]
    return jobs


def _pretraining(settings: StudySettings, folder: Path, arm: str) -> Job:
    target = f"pretrain/{arm}"
    command = training_command(
        _PRETRAIN.format(arm),
        folder / target,
        steps=settings.pretrain_steps,
        batch=settings.batch_size,
        seed=settings.seed,
        start=folder / _BACKBONE,
    )
    command += (
        f"model.detector.num_classes={settings.num_clusters}",
        f"model.embedding_dim={settings.embedding_dim}",
        *(f"model.detector.{one}" for one in settings.detector),
    )
    needs = ("embedder", "embeddings")
    return Job(f"pretrain_{arm}", command, needs, (f"{target}/model_final.pth",))


def _finetuning(settings: StudySettings, folder: Path, arm: str, fraction: float) -> Job:
    name = run_name(arm, fraction)
    target = f"finetune/{name}"
    pretrained = f"pretrain/{arm}/model_final.pth"
    start = _BACKBONE if arm == "none" else pretrained
    command = training_command(
        _FINETUNE,
        folder / target,
        steps=settings.finetune_steps,
        batch=settings.batch_size,
        seed=settings.seed,
        start=folder / start,
    )
    command += (
        f"dataloader.train.dataset.fraction={fraction:g}",
        f"lr_multiplier.scheduler.milestones=[{round(100 * settings.decay_at)}]",
        "lr_multiplier.scheduler.num_updates=100",
        *(f"model.{one}" for one in settings.detector),
    )
    if arm == "none":
        command += ("train.init_inherit.parts=[backbone]",)
        needs = ("scenes_train", "scenes_val", "embedder")
    else:
        command += ("train.init_inherit.averaged=true",)
        needs = ("scenes_train", "scenes_val", f"pretrain_{arm}")
    makes = (f"{target}/model_final.pth", f"{target}/results.json")
    return Job(f"finetune_{name}", command, needs, makes)


def _label_jobs(settings: StudySettings, folder: Path) -> list[Job]:
    """The backbone that everybody starts from, and the boxes and embeddings to learn from."""
    images, boxes = folder / "data/synthetic/train/images", folder / "data/pseudo/boxes"
    embedder = (
        *training_command(
            _EMBEDDER,
            (folder / _BACKBONE).parent,
            steps=settings.embedder_steps,
            batch=_EMBEDDER_BATCH,
            seed=settings.seed,
        ),
        f"dataloader.train.dataset.scenes={settings.embedder_scenes}",
        f"dataloader.train.dataset.image_size={settings.image_size}",
        f"dataloader.test.dataset.scenes={settings.val_images}",
    )
    proposals = (
        *python_command(f"{_TOOLS}/make_pseudo_labels.py", "--images", images, "--output", boxes),
        # one process, for this is not the only command that runs
        *("--num-workers", "0", "--recall-against", "synthetic_train"),
    )
    embeddings = (
        *python_command(f"{_TOOLS}/extract_embeddings.py", "--boxes", boxes, "--images", images),
        *("--output", str(folder / PSEUDO_LABELS)),
        *("--backbone", "small", "--weights", str(folder / _BACKBONE), "--crop-size", "64"),
        *("--dim", str(settings.embedding_dim), "--clusters", str(settings.num_clusters)),
        *("--seed", str(settings.seed)),
    )
    needs = ("embedder", "pseudo_boxes")
    return [
        Job("embedder", embedder, makes=(_BACKBONE,)),
        Job("pseudo_boxes", proposals, ("scenes_train",), (f"data/pseudo/boxes/{PAGE}",)),
        Job("embeddings", embeddings, needs, (f"{PSEUDO_LABELS}/{PAGE}",)),
    ]
