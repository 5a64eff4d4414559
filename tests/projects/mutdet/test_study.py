"""What is special about the study of pre-training: its arms, and its settings."""

from pathlib import Path

import pytest

from rsd2.projects.mutdet.study import PRESETS, study_jobs
from rsd2.study import change_settings


@pytest.mark.parametrize("preset", PRESETS)
def test_arms_differ_in_their_start_alone(preset):
    jobs = study_jobs(PRESETS[preset], Path("OUT"))
    for fraction in ("0.1", "1"):
        share = f"dataloader.train.dataset.fraction={fraction}"
        commands = [job.command for job in jobs if share in job.command]
        assert len(commands) == len(PRESETS[preset].arms)
        differing = ("train.init_checkpoint=", "train.init_inherit", "train.output_dir=")
        rest = {tuple(w for w in words if not w.startswith(differing)) for words in commands}
        assert len(rest) == 1


def test_settings_are_checked():
    changed = change_settings(PRESETS["study"], ["fractions=0.5", "decay_at=0.5"])
    assert (changed.fractions, changed.decay_at) == ((0.5,), 0.5)
    for opt, message in {
        "finetune_step=7": "name=value with a name of arms",
        "fractions=2": r"some of \(0, 1\]",
        "arms=sam": "arms are some of none, detreg, mutdet",
        "decay_at=1": "between 0 and 1",
        "images=0": "images must be at least 1, got 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            change_settings(PRESETS["study"], [opt])
