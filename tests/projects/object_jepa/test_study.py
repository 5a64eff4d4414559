"""What is special about the study: arms that differ in mask and target alone."""

from pathlib import Path

import pytest

from rsd2.config import load_config
from rsd2.projects.object_jepa.study import (
    ARMS,
    PRESETS,
    ObjectJEPASettings,
    arm_title,
    study_jobs,
)
from rsd2.study import change_settings

FOLDER = Path("OUT")


@pytest.fixture(scope="module")
def jobs():
    settings = ObjectJEPASettings(seeds=(0,))
    return {job.name: job for job in study_jobs(settings, FOLDER)}


def test_fine_tunings_differ_in_their_start_alone(jobs):
    differing = ("train.init_checkpoint=", "train.output_dir=", "train.init_inherit.file_part=")
    commands = [jobs[f"finetune_{arm}"].command for arm in ARMS]
    # The target that stays at its random weights is no start: that would be training from scratch.
    parts = {arm: [w for w in jobs[f"finetune_{arm}"].command if differing[2] in w] for arm in ARMS}
    assert parts.pop("frozen_latent") == [differing[2] + "context_encoder"]
    assert not any(parts.values())
    assert len({tuple(w for w in words if not w.startswith(differing)) for words in commands}) == 1
    starts = [[w for w in words if w.startswith(differing[0])] for words in commands]
    assert len({arm_title(arm) for arm in ARMS}) == len(ARMS)
    assert starts[0] == [] and len({start[0] for start in starts[1:]}) == len(ARMS) - 1


def test_pretrainings_differ_in_mask_and_target_alone(jobs):
    configs = {}
    for arm in ARMS[1:]:
        words = jobs[f"pretrain_{arm}"].command
        place = words.index("--config-file") + 1
        cfg = load_config(words[place], [w for w in words[place + 1 :] if "=" in w])
        configs[arm] = cfg
        assert cfg.train.output_dir == f"OUT/pretrain/{arm}"
        assert (cfg.model.masks.mode == "random") == arm.startswith("random")
        assert (cfg.model.target == "pixel") == arm.endswith("pixel")
        assert (cfg.model.predictor.out_dim == 192) == arm.endswith("pixel")
        cfg.train.output_dir = ""
        assert (cfg.train.hooks.target.half_life is None) == arm.startswith("frozen")
        cfg.train.hooks.target.update(half_life=None, start=0)
        cfg.model.masks.update(mode="", loss_set="", num_blocks=0)
        cfg.model.update(target="", loss="")
        cfg.model.predictor.out_dim = 0
    first = configs.pop("random_latent")
    assert all(cfg == first for cfg in configs.values())


def test_both_stages_have_the_same_encoder(jobs):
    found = []
    for name in ("pretrain_object_latent", "finetune_object_latent"):
        words = jobs[name].command
        place = words.index("--config-file") + 1
        cfg = load_config(words[place], [w for w in words[place + 1 :] if "=" in w])
        found.append(cfg.model.encoder if "encoder" in cfg.model else cfg.model.backbone.net)
    assert found[0] == found[1] and found[0].embed_dim == 96


def test_settings_are_checked():
    changed = change_settings(PRESETS["study"], ["arms=scratch,object_pixel", "finetune_steps=7"])
    assert changed.arms == ("scratch", "object_pixel") and changed.finetune_steps == 7
    for opt, message in {
        "arms=sam": "arms are some of scratch, blocks_latent",
        "pretrain_steps=0": "pretrain_steps must be at least 1, got 0",
        "finetune_batch=-1": "finetune_batch must be at least 1, got -1",
    }.items():
        with pytest.raises(ValueError, match=message):
            change_settings(PRESETS["study"], [opt])
