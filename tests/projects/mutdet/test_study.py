"""What is special about the study of pre-training: its arms, and its settings."""

from itertools import product
from pathlib import Path

import pytest

from rsd2.projects.mutdet.study import PRESETS, study_jobs
from rsd2.projects.mutdet.study_arms import ARMS, SWEEP
from rsd2.study import change_settings


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "sweep"])
def test_arms_differ_in_their_start_alone(preset):
    settings = PRESETS[preset]
    jobs = study_jobs(settings, Path("OUT"))
    # Arms with several pre-trainings are fine-tuned from each.
    starts = 1 + (len(settings.arms) - 1) * len(settings.pretrain_seeds)
    for fraction, seed in product(settings.fractions, settings.seeds):
        share = (f"dataloader.train.dataset.fraction={fraction:g}", f"train.seed={seed}")
        commands = [job.command for job in jobs if set(share) <= set(job.command)]
        assert len(commands) == starts
        differing = ("train.init_checkpoint=", "train.init_inherit", "train.output_dir=")
        rest = {tuple(w for w in words if not w.startswith(differing)) for words in commands}
        assert len(rest) == 1


def test_the_sweep_measures_pre_trainings_that_the_study_takes_over():
    sweep = {job.name: job for job in study_jobs(PRESETS["sweep"], Path("OUT"))}
    assert {name for name in sweep if name.startswith("measure_")} == {
        f"measure_{arm}" for arm in SWEEP
    }
    study = [job for job in study_jobs(PRESETS["study"], Path("OUT")) if job.name in sweep]
    assert {"pretrain_mutdet", "measure_mutdet"} < {job.name for job in study}
    assert all(job == sweep[job.name] for job in study)


def test_arms_of_the_sweep_change_the_published_method_in_what_they_are_named_for():
    jobs = {job.name: job.command for job in study_jobs(PRESETS["sweep"], Path("OUT"))}
    published = set(jobs["pretrain_mutdet"])
    for arm in SWEEP:
        added = set(jobs[f"pretrain_{arm}"]) - published
        assert {one for one in added if "output_dir" not in one} == set(ARMS[arm].overrides)


def test_one_arm_differs_from_the_mended_method_in_its_embeddings_alone():
    settings = change_settings(PRESETS["study"], ["arms=both,no_whiten"])
    jobs = {job.name: job for job in study_jobs(settings, Path("OUT"))}
    added = set(jobs["pretrain_no_whiten"].command) - set(jobs["pretrain_both"].command)
    assert {one for one in added if "output_dir" not in one} == {
        'dataloader.train.dataset.folder="OUT/data/pseudo/synthetic_train_no_whiten"'
    }
    options = [set(map(str, jobs[f"embeddings{kind}"].command)) for kind in ("_no_whiten", "")]
    target = {f"OUT/data/pseudo/synthetic_train{kind}" for kind in ("_no_whiten", "")}
    assert options[0] ^ options[1] == {"--no-whiten", *target}
    assert "OUT/data/pseudo/synthetic_heldout_no_whiten" in jobs["measure_no_whiten"].command


def test_settings_are_checked():
    changed = change_settings(PRESETS["study"], ["fractions=0.5", "decay_at=0.5"])
    assert (changed.fractions, changed.decay_at) == ((0.5,), 0.5)
    for opt, message in {
        "finetune_step=7": "name=value with a name of arms",
        "fractions=2": r"must lie in \(0, 1\]",
        "arms=sam": "arms are some of none, detreg, detreg_sum",
        "pretrain_seeds=1,1": "pretrain_seeds must be different numbers",
        "compute_ratio=0": "compute_ratio must be positive",
        "decay_at=1": "between 0 and 1",
        "images=0": "images must be at least 1, got 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            change_settings(PRESETS["study"], [opt])
