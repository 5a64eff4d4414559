"""Does pre-training help? Draw scenes, propose and embed boxes, pre-train, fine-tune, compare.

    python projects/MutDet/tools/run_study.py --output output/study --preset sweep
    python projects/MutDet/tools/run_study.py --output output/study
    python projects/MutDet/tools/run_study.py --output output/short --preset demo finetune_steps=300
    python projects/MutDet/tools/run_study.py --output output/hrsc --preset hrsc
    python projects/MutDet/tools/run_study.py --output output/study --list

A small backbone learns to tell unlabelled crops apart. It replaces ImageNet's backbone for
every arm, also for training "from scratch"; boxes are proposed on the training scenes without their
labels and embedded; DETReg and MutDet pre-train the detector on them; every pre-training is
measured on held-out scenes, which are not those of the scores: how often does a prediction find its
own object in its image? The sweep, a preset without shares of labels, ends here and chooses the
recipe. Then every arm is fine-tuned by the same config, seed and steps on the same shares of the
labels, and scored on scenes of another seed. Commands run two at a time, one thread each; finished
jobs are not repeated, and an interrupted command continues. The output folder gets results.jsonl (a
row with provenance for each fine-tuning), results.md, curves.png, detections.png, report.html, or
sweep.jsonl, sweep.md and sweep.png, and under jobs/ the log, command and cost of every command.

The preset hrsc takes real images of $DETECTRON2_DATASETS: pre-training on images of several sets
without their labels, fine-tuning and scores on HRSC2016. All arms start from ImageNet's
EfficientNet-Lite0, which embeds the boxes too; nothing is drawn, and no pre-training is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from rsd2.data.datasets.builtin import datasets_root
from rsd2.study import (
    Job,
    Study,
    StudyRun,
    StudySettings,
    drawing_job,
    module_command,
    project_config,
    run_study,
    training_command,
    write_report,
)

from .embedding_run import REDUCTION
from .label_statistics import PAGE
from .real_images import CONFIGS, IMAGES, LABELS, real_label_jobs
from .study_arms import ARMS, BASELINE, SWEEP
from .study_comparison import SEPARATOR
from .study_report import PSEUDO_LABELS, SWEEP_REPORT, write_pages, write_real_report

_BACKBONE = "backbone/model_final.pth"
_EMBEDDER = "embedder_small_synthetic_pretrain.py"
_EMBEDDER_BATCH = 64  # crops, which the loss compares with each other
_EMBEDDER_SEED = 0
_CONFIGS = "small_synthetic"
_COST = {
    "start": 10.0,  # of a program
    "label": 0.1,  # of an image: drawing, boxes, embeddings
    "embedder": 0.25,  # of a step
    "detreg": 0.035,  # of an image in a step of pre-training
    "mutdet": 0.068,
    "measure": 0.25,  # of an image on which a pre-training is measured
    "finetune": 0.033,  # of an image in a step of fine-tuning
    "score": 0.05,  # of a scored image, twice: last and averaged weights
}
"""CPU seconds at 128 pixels, one thread of an AMD EPYC beside other work."""
_PACKAGE = "rsd2.projects.mutdet"
_SCENES, _PSEUDO = "data/synthetic", "data/pseudo/synthetic"


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
        weights: file of ``rsd2 get-weights efficientnet_lite0``, for real images.
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
    weights: str = "weights/tf_efficientnet_lite0.pth"

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

    @property
    def configs(self) -> str:
        """End of the names of the configs, before ``_pretrain.py`` and ``_finetune.py``."""
        return CONFIGS if self.real_sets else _CONFIGS


PRESETS = {
    "study": MutDetSettings(),
    "sweep": MutDetSettings(arms=SWEEP, fractions=(), pretrain_seeds=(0,)),
    "demo": MutDetSettings(
        train_images=2000,
        val_images=200,
        pretrain_steps=500,
        finetune_steps=700,
        batch_size=8,
        fractions=(0.1, 1.0),
        seeds=(0,),
        pretrain_seeds=(0,),
        arms=("none", "mutdet"),
    ),
    "hrsc": MutDetSettings(
        arms=("none", "detreg", "both"),
        seeds=(0,),
        pretrain_seeds=(0,),
        pretrain_steps=500,
        finetune_steps=600,
        fractions=(0.1, 1.0),
        real_sets=("hrsc_train", "airport_train", "sen2ships_train_384_128:200"),
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


def study_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    jobs = _label_jobs(settings, folder)
    if settings.real_sets:
        jobs = real_label_jobs(
            folder,
            settings.real_sets,
            settings.weights,
            dim=settings.embedding_dim,
            clusters=settings.num_clusters,
            seed=_EMBEDDER_SEED,
        )
    for seed in settings.pretrain_seeds:
        for arm in settings.arms:
            if arm != BASELINE:
                jobs.append(_pretraining(settings, folder, arm, seed))
                if not settings.real_sets:
                    jobs.append(_measurement(folder, pretraining_name(settings, arm, seed)))

    # Small shares first: they are the cheapest, and the first numbers to look at.
    for fraction in sorted(settings.fractions):
        for seed in settings.seeds:
            for start in _starts(settings):
                jobs.append(_finetuning(settings, folder, start, fraction, seed))
    return jobs


def _starts(settings: MutDetSettings) -> dict[str, str]:
    """Return name of a pre-training, or of the arm without one -> title of the arm."""
    several = len(settings.pretrain_seeds) > 1
    starts = {}
    for seed in settings.pretrain_seeds:
        for arm in settings.arms:
            title = ARMS[arm].title
            if arm == BASELINE:
                starts[arm] = title
            else:
                starts[pretraining_name(settings, arm, seed)] = (
                    f"{title}{SEPARATOR}{seed}" if several else title
                )
    return starts


def _pretraining(settings: MutDetSettings, folder: Path, arm: str, seed: int) -> Job:
    name, recipe = pretraining_name(settings, arm, seed), ARMS[arm]
    ratio = settings.compute_ratio if recipe.equal_compute else 1.0
    needs, of_images = ("embedder", "embeddings"), ()
    if settings.real_sets:
        data = "dataloader.train.dataset"
        needs = ("embeddings",)
        of_images = (
            f'{data}.folder="{folder / LABELS}"',
            f'{data}.image_root="{folder / IMAGES}"',
            f'model.detector.backbone.weights="{settings.weights}"',
        )

    command = training_command(
        project_config(__file__, f"{recipe.method}_{settings.configs}_pretrain.py"),
        folder / "pretrain" / name,
        f"model.detector.num_classes={settings.num_clusters}",
        f"model.embedding_dim={settings.embedding_dim}",
        *(f"model.detector.{one}" for one in settings.detector),
        *of_images,
        *recipe.overrides,
        *settings.overrides,
        steps=round(ratio * settings.pretrain_steps),
        batch=settings.batch_size,
        seed=seed,
        start=None if settings.real_sets else folder / _BACKBONE,
    )
    makes = (f"pretrain/{name}/model_final.pth",)
    return Job(f"pretrain_{name}", command, needs, makes)


def _measurement(folder: Path, name: str) -> Job:
    command = module_command(
        f"{_PACKAGE}.measure_pretraining",
        *("--run", folder / "pretrain" / name, "--labels", folder / f"{_PSEUDO}_heldout"),
        *("--images", folder / f"{_SCENES}/heldout/images", "--output", folder / "measure" / name),
    )
    makes = (f"measure/{name}/results.json",)
    return Job(f"measure_{name}", command, (f"pretrain_{name}", "embeddings_heldout"), makes)


def _finetuning(
    settings: MutDetSettings, folder: Path, pretraining: str, fraction: float, seed: int
) -> Job:
    name = run_name(pretraining, fraction, settings.suffix(seed))
    scenes = () if settings.real_sets else ("scenes_train", "scenes_val")
    weights = (f'model.backbone.weights="{settings.weights}"',) if settings.real_sets else ()
    # "From scratch" starts from the backbone that the others were pre-trained with.
    if pretraining != BASELINE:
        start: Path | None = folder / f"pretrain/{pretraining}/model_final.pth"
        inherit, needs = "train.init_inherit.averaged=true", (*scenes, f"pretrain_{pretraining}")
    elif settings.real_sets:
        start, inherit, needs = None, "train.init_inherit=null", ()
    else:
        start, inherit = folder / _BACKBONE, "train.init_inherit.parts=[backbone]"
        needs = (*scenes, "embedder")

    command = training_command(
        project_config(__file__, f"mutdet_{settings.configs}_finetune.py"),
        folder / "finetune" / name,
        f"dataloader.train.dataset.fraction={fraction:g}",
        f"lr_multiplier.scheduler.milestones=[{round(100 * settings.decay_at)}]",
        "lr_multiplier.scheduler.num_updates=100",
        *(f"model.{one}" for one in settings.detector),
        *weights,
        inherit,
        *settings.overrides,
        steps=settings.finetune_steps,
        batch=settings.batch_size,
        seed=seed,
        start=start,
    )
    makes = (f"finetune/{name}/model_final.pth", f"finetune/{name}/results.json")
    return Job(f"finetune_{name}", command, needs, makes)


def _label_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the jobs that all arms share: scenes, the first backbone, boxes and embeddings."""
    # One process, because this is not the only command that runs.
    alone = ("--num-workers", 0)
    counts = (settings.train_images, settings.val_images, settings.heldout_images)
    jobs = [
        drawing_job(
            f"scenes_{split}",
            folder,
            f"{_SCENES}/{split}",
            "scenes.json",
            images=images,
            seed=seed,
            options=("--size", settings.image_size, *alone),
        )
        for split, images, seed in zip(
            ("train", "val", "heldout"), counts, (1, settings.val_seed, 3)
        )
    ]
    embedder = training_command(
        project_config(__file__, _EMBEDDER),
        (folder / _BACKBONE).parent,
        f"dataloader.train.dataset.scenes={settings.embedder_scenes}",
        f"dataloader.train.dataset.image_size={settings.image_size}",
        f"dataloader.test.dataset.scenes={settings.val_images}",
        steps=settings.embedder_steps,
        batch=_EMBEDDER_BATCH,
        seed=_EMBEDDER_SEED,
    )
    jobs.append(Job("embedder", embedder, makes=(_BACKBONE,)))

    fitted = f"{PSEUDO_LABELS}/{REDUCTION}"
    for split, suffix, options, needs in (
        ("train", "", ("--clusters", settings.num_clusters, "--seed", _EMBEDDER_SEED), ()),
        ("heldout", "_heldout", ("--reduction", folder / fitted), ("embeddings",)),
    ):
        images = folder / f"{_SCENES}/{split}/images"
        boxes, target = f"data/pseudo/boxes{suffix}", f"{_PSEUDO}_{split}"
        # Only the training scenes' boxes are compared with true objects.
        compared = () if suffix else ("--recall-against", "synthetic_train")
        proposals = module_command(
            f"{_PACKAGE}.make_pseudo_labels",
            *("--images", images, "--output", folder / boxes, *compared, *alone),
        )
        embeddings = module_command(
            f"{_PACKAGE}.extract_embeddings",
            *("--boxes", folder / boxes, "--images", images, "--output", folder / target),
            *("--backbone", "small", "--weights", folder / _BACKBONE, "--crop-size", 64),
            *("--dim", settings.embedding_dim, *options, *settings.embedding_options),
        )
        names = f"pseudo_boxes{suffix}", f"embeddings{suffix}"
        jobs += [
            Job(names[0], proposals, (f"scenes_{split}",), (f"{boxes}/{PAGE}",)),
            Job(names[1], embeddings, ("embedder", names[0], *needs), (f"{target}/{PAGE}",)),
        ]
    return jobs


def plan(settings: MutDetSettings, folder: Path) -> Study:
    """Make the study.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The study.
    """
    starts, runs = _starts(settings), []
    for fraction in sorted(settings.fractions):
        for seed in settings.seeds:
            for start, title in starts.items():
                name = run_name(start, fraction, settings.suffix(seed))
                stages = () if start == BASELINE else (f"pretrain_{start}",)
                group = f"{100 * fraction:g} % of the labels"
                runs.append(StudyRun(title, f"finetune/{name}", f"finetune_{name}", group, stages))

    measured = [
        StudyRun(title, f"measure/{name}", f"measure_{name}", "", (f"pretrain_{name}",), False)
        for name, title in starts.items()
        if name != BASELINE
    ]
    if settings.real_sets:
        datasets = Path(datasets_root())
        report = partial(write_real_report, runs, folder, datasets)
        return Study(study_jobs(settings, folder), report, datasets=datasets)
    if runs:
        report = partial(write_pages, runs, folder, settings.images)
    else:
        report = partial(write_report, SWEEP_REPORT, measured, folder)
    return Study(study_jobs(settings, folder), report, cpu_minutes=budget(settings))


def budget(settings: MutDetSettings) -> dict[str, float]:
    """Estimate the CPU minutes of a study, from what its jobs took at 128 pixels.

    Args:
        settings: settings of the study.

    Returns:
        Kind of job -> minutes of all such jobs, and ``all``.
    """
    cost, area = _COST, (settings.image_size / 128) ** 2
    scenes = settings.train_images + settings.val_images + settings.heldout_images
    views = area * settings.batch_size

    shared = scenes * area * cost["label"] + settings.embedder_steps * cost["embedder"]
    pretraining = 0.0
    for arm in (ARMS[name] for name in settings.arms if name != BASELINE):
        steps = settings.pretrain_steps * (settings.compute_ratio if arm.equal_compute else 1)
        once = 2 * cost["start"] + settings.heldout_images * area * cost["measure"]
        once += steps * views * cost[arm.method]
        pretraining += len(settings.pretrain_seeds) * once

    runs = len(_starts(settings)) * len(settings.seeds) * len(settings.fractions)
    once = cost["start"] + settings.val_images * area * cost["score"]
    once += settings.finetune_steps * views * cost["finetune"]

    seconds = {"labels and backbone": shared, "pre-training": pretraining}
    seconds["fine-tuning"] = runs * once
    seconds["all"] = sum(seconds.values())
    return {kind: value / 60 for kind, value in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
