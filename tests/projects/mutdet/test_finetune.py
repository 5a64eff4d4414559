"""Fine-tuning: what the plain detector inherits from a pre-training, and the recipes' values."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import load_config
from rsd2.data.class_orders import class_order
from rsd2.testing import shrink
from rsd2.weights.errors import CheckpointError

CONFIGS = Path(__file__).resolve().parents[3] / "projects" / "MutDet" / "configs"
FINETUNE = sorted(path.stem for path in CONFIGS.glob("*_finetune*.py"))
PRETRAIN = sorted(path.stem for path in CONFIGS.glob("*det*_small_synthetic_pretrain.py"))


def tiny(name, *overrides):
    cfg = shrink(load_config(CONFIGS / f"{name}.py", overrides))
    torch.manual_seed(0)
    return cfg, instantiate(cfg.model)


def test_there_are_both():
    assert len(FINETUNE) >= 5 and len(PRETRAIN) == 2


@pytest.mark.parametrize("pretraining", PRETRAIN)
def test_everything_but_the_classes_comes_from_the_pretraining(pretraining):
    state = tiny(pretraining)[1].state_dict()
    cfg, model = tiny("mutdet_small_synthetic_finetune")
    report = instantiate(cfg.train.init_inherit).load(model, {"model": state}, pretraining)
    own = model.state_dict()
    assert all("class_heads" in key or "label_embedding" in key for key in report.anew)
    assert len(report.inherited) + len(report.anew) == len(own)
    for key, origin in report.inherited.items():
        assert torch.equal(own[key], state[origin])
    # what a pre-training alone has is dropped by its name, not by chance
    reasons = {key: why for key, why in report.dropped.items() if "classes" not in why}
    assert set(reasons.values()) == {"of the pre-training only"}
    del state["encoder.layers.0.norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing from the file: encoder\.layers\.0\.norm"):
        instantiate(cfg.train.init_inherit).load(model, {"model": state}, pretraining)


def test_from_scratch_the_backbone_alone_is_inherited():
    state = tiny(PRETRAIN[0])[1].backbone.state_dict()
    state = {f"backbone.{key}": value for key, value in state.items()}
    cfg, model = tiny("mutdet_small_synthetic_finetune", "train.init_inherit.parts=[backbone]")
    report = instantiate(cfg.train.init_inherit).load(model, {"model": state}, "backbone")
    assert set(report.inherited) == {k for k in model.state_dict() if k in state}


@pytest.mark.parametrize("name", [name for name in FINETUNE if "r50" in name])
def test_recipe_is_the_official_one(name):
    cfg = load_config(CONFIGS / f"{name}.py", ["train.max_iter=360", "train.epochs=null"])
    group = cfg.optimizer.params
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (1e-4, 1e-5)
    assert group.lr_multipliers == {"backbone": 0.1, "sampling_offsets": 0.1}
    assert cfg.train.clip_grad.enabled and cfg.train.clip_grad.max_norm == 35
    assert cfg.dataloader.train.total_batch_size == 2
    assert load_config(CONFIGS / f"{name}.py").train.epochs == 36
    cfg.lr_multiplier.warmup_iters = 0
    rate = instantiate(cfg.lr_multiplier)
    # a tenth after 32 of 36 epochs
    assert [rate(x / 360) for x in (0, 319, 321, 359)] == pytest.approx([1, 1, 0.1, 0.1])
    side = 1024 if "dota" in name else 800
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        assert loader.mapper.augmentations[0].short_edge_length == side
    assert cfg.model.backbone.freeze_at == 2 and cfg.model.num_queries == 300
    dataset = next(d for d in ("dior_r", "dota", "ohd_sjtu_s", "ohd_sjtu_l") if d in name)
    classes = class_order("dota_v1.0" if dataset == "dota" else dataset)
    assert cfg.model.num_classes == len(classes)


@pytest.mark.parametrize("name", FINETUNE)
def test_share_and_schedule_are_values(name):
    opts = ["dataloader.train.dataset.fraction=0.25", "train.max_iter=null", "train.epochs=12"]
    cfg = load_config(CONFIGS / f"{name}.py", [*opts, "train.init_checkpoint=x.pth"])
    assert cfg.dataloader.train.dataset.fraction == 0.25 and cfg.train.epochs == 12
    assert "averaged" in cfg.train.init_inherit and cfg.train.init_inherit.encoder_layers is None
