"""Settings of the study of pre-training, and its ready sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rsd2.study import StudySettings

from .real_images import CONFIGS
from .study_arms import ARMS, BASELINE, SWEEP


@dataclass(frozen=True)
class MutDetSettings(StudySettings):
    """Settings of a study.

    Attributes:
        train_images: number of scenes to pre-train on, and to take shares of the labels from.
        val_images: number of scored scenes, of another seed.
        val_seed: seed of the scored scenes; another one to choose settings without looking at them.
        heldout_images: number of scenes, of a fourth seed, on which pre-trainings are measured.
        image_size: side of the scenes in pixels.
        embedder_steps: optimizer steps of the backbone's training on crops.
        embedder_scenes: number of scenes, of a fifth seed, from which the crops are taken.
        num_clusters: number of pseudo-classes.
        embedding_dim: components of the embeddings.
        embedding_options: further options of ``extract_embeddings.py``, like ``--no-whiten``.
        pretrain_seeds: seeds of the pre-trainings; ``seeds`` are those of the fine-tunings.
        pretrain_steps: optimizer steps of DETReg and of MutDet.
        compute_ratio: CPU time of a MutDet step in steps of DETReg, for the arm of equal compute.
        finetune_steps: optimizer steps of every fine-tuning.
        batch_size: number of images per step, in every training.
        fractions: shares of the labels, each in (0, 1]; none: nothing is fine-tuned.
        decay_at: fraction of a fine-tuning after which its rate is a tenth.
        detector: overrides of the detector, ``key=value``.
        images: number of held-out scenes to draw with each arm's detections.
        real_sets: sets of real images to pre-train on, see `real_label_jobs`; then nothing is
            drawn, and numbers and sizes of scenes mean nothing. Empty for generated scenes.
        weights: file of ``rsd2 get-weights efficientnet_lite0``, absolute or relative to the
            checkout, for the backbone of every arm; empty trains the small one.
        harbours: sides, in pixels, of the georeferenced harbours that the first arm maps at the
            end, with the largest share of the labels.
    """

    known_arms: ClassVar[tuple[str, ...]] = tuple(ARMS)
    arms: tuple[str, ...] = (
        *("none", "detreg", "detreg_sum", "detreg_compute"),
        *("mutdet", "both", "both_10"),
    )
    seeds: tuple[int, ...] = (0, 1, 2)
    train_images: int = 1000
    val_images: int = 150
    val_seed: int = 2
    heldout_images: int = 60
    image_size: int = 128
    embedder_steps: int = 300
    embedder_scenes: int = 200
    num_clusters: int = 64
    embedding_dim: int = 128
    embedding_options: tuple[str, ...] = ()
    pretrain_seeds: tuple[int, ...] = (0, 1)
    pretrain_steps: int = 500
    compute_ratio: float = 2.0
    finetune_steps: int = 300
    batch_size: int = 4
    fractions: tuple[float, ...] = (0.02, 0.1)
    decay_at: float = 0.75
    detector: tuple[str, ...] = ()
    images: int = 8
    real_sets: tuple[str, ...] = ()
    weights: str = ""
    harbours: tuple[int, ...] = ()

    @property
    def pretrains(self) -> bool:
        """Whether any arm is pre-trained."""
        return set(self.arms) != {BASELINE}

    @property
    def mapping_run(self) -> str:
        """Folder of the fine-tuning that maps the harbours and that the page is about.

        It is chosen before any score is known: the first arm with the largest share of the labels.
        """
        start = self.arms[0]
        # The first seed of a pre-training and of a fine-tuning has the plain name.
        return f"finetune/{run_name(start, max(self.fractions))}"

    @property
    def configs(self) -> str:
        """End of the names of the configs, before ``_pretrain.py`` and ``_finetune.py``."""
        if self.real_sets:
            return CONFIGS
        return "lite0_synthetic" if self.weights else "small_synthetic"

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        seeds = self.pretrain_seeds
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"pretrain_seeds must be different numbers, got {list(seeds)}")
        if self.compute_ratio <= 0:
            raise ValueError(f"compute_ratio must be positive, got {self.compute_ratio}")
        if any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"fractions must lie in (0, 1], got {list(self.fractions)}")
        if not 0 < self.decay_at < 1:
            raise ValueError(f"decay_at must lie between 0 and 1, got {self.decay_at}")
        if self.real_sets and not self.fractions:
            raise ValueError("on real images nothing but fine-tunings is scored: give fractions")
        if self.real_sets and not self.weights:
            raise ValueError("on real images every arm starts from a file: give weights")
        if self.harbours and not self.fractions:
            raise ValueError("harbours need a fine-tuned detector: give fractions")


PRESETS = {
    "study": MutDetSettings(),
    "sweep": MutDetSettings(arms=SWEEP, fractions=(), pretrain_seeds=(0,)),
    # From ImageNet's weights so few steps leave head-room: none reaches AP50 43 to 45.
    "imagenet": MutDetSettings(
        arms=(*MutDetSettings.arms, "no_whiten"),
        val_seed=5,
        finetune_steps=400,
        fractions=(0.02,),
        weights="weights/tf_efficientnet_lite0.pth",
    ),
    "demo": MutDetSettings(
        train_images=2000,
        val_images=200,
        pretrain_steps=500,
        finetune_steps=700,
        batch_size=8,
        fractions=(0.1, 1.0),
        seeds=(0,),
        pretrain_seeds=(0,),
        arms=("none", "both"),
        harbours=(768,),
    ),
    # On a part of the training split, none reaches AP50 35 with all labels after 2,000 steps.
    "hrsc": MutDetSettings(
        arms=("none", "detreg", "both"),
        seeds=(0,),
        pretrain_seeds=(0,),
        pretrain_steps=1000,
        finetune_steps=3000,
        fractions=(0.1, 1.0),
        real_sets=("hrsc_train", "airport_train", "sen2ships_train_384_128:200"),
        weights="weights/tf_efficientnet_lite0.pth",
    ),
    "demo_quick": MutDetSettings(
        train_images=48,
        val_images=8,
        embedder_steps=10,
        embedder_scenes=20,
        finetune_steps=24,
        batch_size=2,
        fractions=(1.0,),
        seeds=(0,),
        pretrain_seeds=(0,),
        arms=("none",),
        harbours=(256,),
    ),
    "quick": MutDetSettings(
        arms=("none", "detreg", "mutdet"),
        seeds=(0,),
        pretrain_seeds=(0,),
        fractions=(0.1, 1.0),
        heldout_images=3,
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


def pretraining_name(settings: MutDetSettings, arm: str, seed: int) -> str:
    """Name a pre-training, its job and its folder under ``pretrain``.

    Args:
        settings: settings of the study.
        arm: one of `ARMS` that is pre-trained.
        seed: one of ``pretrain_seeds``; the first one has the plain name.

    Returns:
        A name like ``mutdet`` or ``mutdet_start1``.
    """
    return arm if seed == settings.pretrain_seeds[0] else f"{arm}_start{seed}"


def run_name(start: str, fraction: float, suffix: str = "") -> str:
    """Name a fine-tuning, its job and its folder under ``finetune``.

    Args:
        start: name of the pre-training, or of the arm without one.
        fraction: share of the labels.
        suffix: suffix that distinguishes the seeds, see `StudySettings.suffix`.

    Returns:
        A name like ``mutdet_10`` for 10 %.
    """
    return f"{start}_{100 * fraction:g}{suffix}"
