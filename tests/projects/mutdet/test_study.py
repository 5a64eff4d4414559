"""The study's commands: the same budget for every arm, and every one of them can be run."""

from pathlib import Path

import pytest

from rsd2.config import load_config
from rsd2.projects.mutdet.study import PRESETS, run_name, study_jobs
from rsd2.study import change_settings

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("OUT")


def words_of(job):
    return list(job.command[1:])


@pytest.fixture(params=PRESETS)
def jobs(request):
    return study_jobs(PRESETS[request.param], FOLDER)


def test_needs_come_first_and_every_arm_is_fine_tuned_on_every_share(jobs):
    seen = set()
    for job in jobs:
        assert seen.issuperset(job.needs), job.name
        seen.add(job.name)
    for preset in PRESETS.values():
        names = {job.name for job in study_jobs(preset, FOLDER)}
        pairs = [(arm, fraction) for arm in preset.arms for fraction in preset.fractions]
        assert {f"finetune_{run_name(*pair)}" for pair in pairs} <= names


def test_arms_differ_in_their_start_alone(jobs):
    for fraction in ("0.1", "1"):
        share = f"dataloader.train.dataset.fraction={fraction}"
        commands = [job.command for job in jobs if share in job.command]
        assert len(commands) >= 2
        differing = ("train.init_checkpoint=", "train.init_inherit", "train.output_dir=")
        rest = {tuple(w for w in words if not w.startswith(differing)) for words in commands}
        assert len(rest) == 1


def test_every_override_means_something(jobs):
    for job in jobs:
        words = words_of(job)
        if "--config-file" in words:
            place = words.index("--config-file")
            opts = [word for word in words[place + 2 :] if "=" in word]
            cfg = load_config(ROOT / words[place + 1], opts)
            assert cfg.train.output_dir.startswith("OUT/") and len(opts) > 4
            assert bool(cfg.train.init_checkpoint) == (job.name != "embedder")


def test_sizes_are_changed_by_name():
    changed = change_settings(
        PRESETS["study"], ["finetune_steps=7", "fractions=0.5", "arms=none,mutdet", "decay_at=0.5"]
    )
    assert (changed.finetune_steps, changed.fractions) == (7, (0.5,))
    assert changed.arms == ("none", "mutdet") and changed.decay_at == 0.5
    assert changed.train_images == PRESETS["study"].train_images
    for opt, message in {
        "finetune_step=7": "name=value with a name of train_images",
        "finetune_steps": "name=value",
        "finetune_steps=many": "expects int like",
        "fractions=2": r"some of \(0, 1\]",
        "arms=sam": "arms are some of none, detreg, mutdet",
        "decay_at=1": "between 0 and 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            change_settings(PRESETS["study"], [opt])
