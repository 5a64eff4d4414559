"""Does pre-training help? Draw scenes, propose and embed boxes, pre-train, fine-tune, compare.

    python projects/MutDet/tools/run_study.py --output output/study --preset sweep
    python projects/MutDet/tools/run_study.py --output output/study
    python projects/MutDet/tools/run_study.py --output output/short --preset demo finetune_steps=300
    python projects/MutDet/tools/run_study.py --output output/hrsc --preset hrsc
    python projects/MutDet/tools/run_study.py --output output/study --list

A small backbone learns to tell unlabelled crops apart. It replaces ImageNet's backbone for
every arm, also for training "from scratch"; with weights=FILE, which `rsd2 get-weights
efficientnet_lite0` wrote, it is EfficientNet-Lite0 of ImageNet instead. Boxes are proposed on the
training scenes without their labels and embedded; DETReg and MutDet pre-train the detector on
them; every pre-training is
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
from functools import partial
from pathlib import Path

from rsd2.data.datasets.builtin import datasets_root
from rsd2.study import (
    Job,
    Study,
    StudyRun,
    drawing_job,
    module_command,
    project_config,
    run_study,
    training_command,
    write_report,
)

from .embedding_run import REDUCTION
from .label_statistics import PAGE
from .real_images import IMAGES, LABELS, real_label_jobs
from .study_arms import ARMS, BASELINE
from .study_comparison import SEPARATOR
from .study_map import harbour_jobs
from .study_report import PSEUDO_LABELS, SWEEP_REPORT, write_pages, write_real_report
from .study_settings import PRESETS, MutDetSettings, pretraining_name, run_name

_BACKBONE = "backbone/model_final.pth"
_EMBEDDER = "embedder_small_synthetic_pretrain.py"
_EMBEDDER_BATCH = 64  # crops, which the loss compares with each other
_EMBEDDER_SEED = 0
_LITE0 = "efficientnet_lite0"
_ALONE = ("--num-workers", 0)  # one process, because this is not the only command that runs
_COST = {
    "start": 10.0,  # of a program
    "label": 0.1,  # of an image: drawing, boxes, embeddings
    "embedder": 0.25,  # of a step
    "detreg": 0.035,  # of an image in a step of pre-training
    "mutdet": 0.068,
    "measure": 0.25,  # of an image on which a pre-training is measured
    "small": 0.033,  # of an image in a step of fine-tuning, by backbone
    "lite0": 0.042,
    "score": 0.05,  # of a scored image, twice: last and averaged weights
}
"""CPU seconds at 128 pixels, one thread of an AMD EPYC beside other work."""
_PACKAGE = "rsd2.projects.mutdet"
_SCENES, _PSEUDO = "data/synthetic", "data/pseudo/synthetic"


def study_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the commands of a study, each after those that it needs.

    Args:
        settings: settings of the study.
        folder: output folder, absolute.

    Returns:
        The jobs.
    """
    if settings.real_sets:
        jobs = real_label_jobs(
            folder,
            settings.real_sets,
            settings.weights,
            dim=settings.embedding_dim,
            clusters=settings.num_clusters,
            seed=_EMBEDDER_SEED,
        )
    else:
        jobs = _shared_jobs(settings, folder)
        if settings.pretrains:
            jobs += _label_jobs(settings, folder)
    for seed in settings.pretrain_seeds:
        for arm in settings.arms:
            if arm != BASELINE:
                jobs.append(_pretraining(settings, folder, arm, seed))
                name = pretraining_name(settings, arm, seed)
                if not settings.real_sets:
                    jobs.append(_measurement(folder, name, ARMS[arm].whitened))

    # Small shares first: they are the cheapest, and the first numbers to look at.
    for fraction in sorted(settings.fractions):
        for seed in settings.seeds:
            for start in _starts(settings):
                jobs.append(_finetuning(settings, folder, start, fraction, seed))

    for side in settings.harbours:
        jobs += harbour_jobs(folder, settings.mapping_run, side)
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
    of_images: tuple[str, ...] = ()
    if settings.real_sets:
        data = "dataloader.train.dataset"
        of_images = (
            f'{data}.folder="{folder / LABELS}"',
            f'{data}.image_root="{folder / IMAGES}"',
        )

    labels = () if recipe.whitened else (_labels_override(folder),)
    command = training_command(
        project_config(__file__, f"{recipe.method}_{settings.configs}_pretrain.py"),
        folder / "pretrain" / name,
        f"model.detector.num_classes={settings.num_clusters}",
        f"model.embedding_dim={settings.embedding_dim}",
        *(f"model.detector.{one}" for one in settings.detector),
        *of_images,
        *_weights_of(settings, "model.detector"),
        *recipe.overrides,
        *labels,
        *settings.overrides,
        steps=round(ratio * settings.pretrain_steps),
        batch=settings.batch_size,
        seed=seed,
        start=None if settings.weights else folder / _BACKBONE,
    )
    makes = (f"pretrain/{name}/model_final.pth",)
    needs = (*_embedder(settings), f"embeddings{_kind(recipe.whitened)}")
    return Job(f"pretrain_{name}", command, needs, makes)


def _embedder(settings: MutDetSettings) -> tuple[str, ...]:
    """Name the job that trains the backbone, if there is one."""
    return () if settings.weights else ("embedder",)


def _weights_of(settings: MutDetSettings, model: str) -> tuple[str, ...]:
    """Override the file of the backbone's weights, if there is one."""
    return (f'{model}.backbone.weights="{settings.weights}"',) if settings.weights else ()


def _kind(whitened: bool) -> str:
    """Return what the names of jobs and folders of embeddings end with."""
    return "" if whitened else "_no_whiten"


def _labels_override(folder: Path) -> str:
    # Quotes, because a folder's name may contain characters that an override gives a meaning.
    return f'dataloader.train.dataset.folder="{folder / f"{_PSEUDO}_train{_kind(False)}"}"'


def _measurement(folder: Path, name: str, whitened: bool) -> Job:
    labels = f"heldout{_kind(whitened)}"
    command = module_command(
        f"{_PACKAGE}.measure_pretraining",
        *("--run", folder / "pretrain" / name, "--labels", folder / f"{_PSEUDO}_{labels}"),
        *("--images", folder / f"{_SCENES}/heldout/images", "--output", folder / "measure" / name),
    )
    makes = (f"measure/{name}/results.json",)
    return Job(f"measure_{name}", command, (f"pretrain_{name}", f"embeddings_{labels}"), makes)


def _finetuning(
    settings: MutDetSettings, folder: Path, pretraining: str, fraction: float, seed: int
) -> Job:
    name = run_name(pretraining, fraction, settings.suffix(seed))
    scenes = () if settings.real_sets else ("scenes_train", "scenes_val")
    # "From scratch" starts from the backbone that the others were pre-trained with.
    if pretraining != BASELINE:
        start: Path | None = folder / f"pretrain/{pretraining}/model_final.pth"
        inherit, needs = "train.init_inherit.averaged=true", (f"pretrain_{pretraining}",)
    elif settings.weights:
        start, inherit, needs = None, "train.init_inherit=null", ()
    else:
        start, inherit = folder / _BACKBONE, "train.init_inherit.parts=[backbone]"
        needs = _embedder(settings)

    command = training_command(
        project_config(__file__, f"mutdet_{settings.configs}_finetune.py"),
        folder / "finetune" / name,
        f"dataloader.train.dataset.fraction={fraction:g}",
        f"lr_multiplier.scheduler.milestones=[{round(100 * settings.decay_at)}]",
        "lr_multiplier.scheduler.num_updates=100",
        *(f"model.{one}" for one in settings.detector),
        *_weights_of(settings, "model"),
        inherit,
        *settings.overrides,
        steps=settings.finetune_steps,
        batch=settings.batch_size,
        seed=seed,
        start=start,
    )
    makes = (f"finetune/{name}/model_final.pth", f"finetune/{name}/results.json")
    return Job(f"finetune_{name}", command, (*scenes, *needs), makes)


def _shared_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the jobs that all arms share: scenes, and the first backbone."""
    counts = (settings.train_images, settings.val_images, settings.heldout_images)
    splits = list(zip(("train", "val", "heldout"), counts, (1, settings.val_seed, 3)))
    jobs = [
        drawing_job(
            f"scenes_{split}",
            folder,
            f"{_SCENES}/{split}",
            "scenes.json",
            images=images,
            seed=seed,
            options=("--size", settings.image_size, *_ALONE),
        )
        # Held-out scenes measure pre-trainings, and nothing else.
        for split, images, seed in (splits if settings.pretrains else splits[:2])
    ]
    if settings.weights:
        return jobs

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
    return [*jobs, Job("embedder", embedder, makes=(_BACKBONE,))]


def _label_jobs(settings: MutDetSettings, folder: Path) -> list[Job]:
    """List the jobs that make the labels of the pre-trainings: boxes and embeddings."""
    kinds = sorted({True} | {ARMS[arm].whitened for arm in settings.arms}, reverse=True)
    jobs = []
    for split, suffix in (("train", ""), ("heldout", "_heldout")):
        images = folder / f"{_SCENES}/{split}/images"
        boxes = f"data/pseudo/boxes{suffix}"
        # Only the training scenes' boxes are compared with true objects.
        compared = () if suffix else ("--recall-against", "synthetic_train")
        proposals = module_command(
            f"{_PACKAGE}.make_pseudo_labels",
            *("--images", images, "--output", folder / boxes, *compared, *_ALONE),
        )
        name = f"pseudo_boxes{suffix}"
        jobs.append(Job(name, proposals, (f"scenes_{split}",), (f"{boxes}/{PAGE}",)))
        for whitened in kinds:
            jobs.append(_embedding(settings, folder, split, suffix, whitened))
    return jobs


def _embedding(
    settings: MutDetSettings, folder: Path, split: str, suffix: str, whitened: bool
) -> Job:
    """Make the job that embeds the boxes of a split; the held-out ones as those of training."""
    kind = _kind(whitened)
    needs: tuple[str, ...] = (*_embedder(settings), f"pseudo_boxes{suffix}")
    options: tuple[object, ...] = ("--clusters", settings.num_clusters, "--seed", _EMBEDDER_SEED)
    if suffix:
        options = ("--reduction", folder / f"{PSEUDO_LABELS}{kind}/{REDUCTION}")
        needs += (f"embeddings{kind}",)
    elif not whitened:
        options += ("--no-whiten",)

    target = f"{_PSEUDO}_{split}{kind}"
    command = module_command(
        f"{_PACKAGE}.extract_embeddings",
        *("--boxes", folder / f"data/pseudo/boxes{suffix}"),
        *("--images", folder / f"{_SCENES}/{split}/images", "--output", folder / target),
        *("--backbone", _LITE0 if settings.weights else "small"),
        *("--weights", settings.weights or folder / _BACKBONE, "--crop-size", 64),
        *("--dim", settings.embedding_dim, *options, *settings.embedding_options),
    )
    return Job(f"embeddings{suffix}{kind}", command, needs, (f"{target}/{PAGE}",))


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
        report = partial(write_pages, settings, runs, folder)
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

    shared = scenes * area * cost["label"]
    if not settings.weights:
        shared += settings.embedder_steps * cost["embedder"]
    pretraining = 0.0
    for arm in (ARMS[name] for name in settings.arms if name != BASELINE):
        steps = settings.pretrain_steps * (settings.compute_ratio if arm.equal_compute else 1)
        once = 2 * cost["start"] + settings.heldout_images * area * cost["measure"]
        once += steps * views * cost[arm.method]
        pretraining += len(settings.pretrain_seeds) * once

    runs = len(_starts(settings)) * len(settings.seeds) * len(settings.fractions)
    once = cost["start"] + settings.val_images * area * cost["score"]
    once += settings.finetune_steps * views * cost["lite0" if settings.weights else "small"]

    seconds = {"labels and backbone": shared, "pre-training": pretraining}
    seconds["fine-tuning"] = runs * once
    seconds["all"] = sum(seconds.values())
    return {kind: value / 60 for kind, value in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see `rsd2.study.run_study`."""
    return run_study(__doc__, PRESETS, plan, argv)


if __name__ == "__main__":
    sys.exit(main())
