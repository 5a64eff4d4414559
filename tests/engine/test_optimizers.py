"""Parameter groups: the longest pattern wins; options are plain values that load safely."""

import logging

import pytest
import torch
from torch import nn

from rsd2.config import get_config
from rsd2.engine import build_optimizer, optimizer_params


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.sampling_offsets = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def _rates(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g.get("weight_decay")) for g in groups for p in g["params"]}


def test_patterns_multiply_the_rate_and_the_longest_wins():
    model = _Net()
    groups = optimizer_params(
        model, 1.0, {"backbone": 0.1, "backbone.1": 0.01, "sampling": 0.5}, weight_decay_norm=0.0
    )
    found = _rates(model, groups)
    assert found["backbone.0.weight"] == (pytest.approx(0.1), None)
    assert found["backbone.1.weight"] == (pytest.approx(0.01), 0.0)
    assert found["sampling_offsets.bias"][0] == 0.5
    assert found["head.weight"] == (1.0, None)
    assert len(found) == len(list(model.parameters()))


def test_pattern_without_match_is_warned_of_and_frozen_parameters_are_left_out(caplog):
    model = _Net()
    model.backbone.requires_grad_(False)
    with caplog.at_level(logging.WARNING):
        groups = optimizer_params(model, 1.0, {"bakcbone": 0.1})
    assert "bakcbone" in caplog.text and "backbone" in caplog.text
    assert len(_rates(model, groups)) == 4
    with pytest.raises(ValueError, match="nothing can be trained"):
        optimizer_params(model.requires_grad_(False), 1.0)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_common_optimizers_build_and_their_state_loads_safely(name, tmp_path):
    cfg = get_config("common/optim.py", name)
    cfg.lr = 0.5
    model = _Net()
    optimizer = build_optimizer(cfg, model)
    rates = _rates(model, optimizer.param_groups)
    assert rates["head.weight"][0] == 0.5
    assert rates["backbone.0.weight"][0] == pytest.approx(0.05 if name == "AdamW" else 0.5)
    assert "model" not in cfg.params  # the config stays one that can be saved
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    optimizer.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))


class _Transformer(nn.Module):
    """Names of a detector on a plain transformer of three blocks; the first is frozen."""

    def __init__(self):
        super().__init__()
        net = nn.Module()
        net.patch_embed, net.norm = nn.Linear(2, 2), nn.LayerNorm(2)
        net.pos_embed = nn.Parameter(torch.zeros(2))
        net.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        net.blocks[0].requires_grad_(False)
        self.backbone = nn.ModuleDict({"net": net, "level": nn.Linear(2, 2)})
        self.blocks = nn.ModuleList([nn.Linear(2, 2)])  # of a decoder: no layers of the backbone


def test_rates_fall_from_layer_to_layer_by_hand():
    model = _Transformer()
    found = _rates(model, optimizer_params(model, 2.0, {"level": 0.5}, layer_decay=0.5))
    rates = {name.rpartition(".")[0]: rate for name, (rate, _) in found.items()}
    assert rates == {
        "backbone.net.patch_embed": 2.0 / 16,
        "backbone.net": 2.0 / 16,  # the table of positions
        "backbone.net.blocks.1": 2.0 / 4,
        "backbone.net.blocks.2": 2.0 / 2,
        "backbone.net.norm": 2.0,
        "backbone.level": 1.0,
        "blocks.0": 2.0,
    }


def test_layer_decay_multiplies_the_patterns():
    model = _Transformer()
    found = _rates(model, optimizer_params(model, 1.0, {"net": 0.1}, layer_decay=0.5))
    assert found["backbone.net.blocks.2.weight"][0] == pytest.approx(0.05)


def test_positions_have_their_own_weight_decay():
    model = _Transformer()
    found = _rates(model, optimizer_params(model, 1.0, weight_decay_positions=0.0))
    assert found["backbone.net.pos_embed"][1] == 0.0
    assert found["backbone.net.patch_embed.weight"][1] is None


@pytest.mark.parametrize("layer_decay", [0.0, -0.5, 1.5])
def test_layer_decay_out_of_range_is_refused(layer_decay):
    with pytest.raises(ValueError, match=rf"layer_decay lies in \(0, 1\].*got {layer_decay} and 3"):
        optimizer_params(_Transformer(), 1.0, layer_decay=layer_decay)


def test_layer_decay_without_a_transformer_is_refused():
    with pytest.raises(ValueError, match="0.75 and 0 blocks"):
        optimizer_params(_Net(), 1.0, layer_decay=0.75)


def test_layer_decay_is_a_value_of_a_config():
    cfg = get_config("ObjectJEPA/configs/common/finetune.py", "optimizer")
    cfg.lr = 1.0
    model = _Transformer()
    found = _rates(model, build_optimizer(cfg, model).param_groups)
    assert found["backbone.net.blocks.1.weight"] == (pytest.approx(0.75**2), 0.05)
    assert found["backbone.net.norm.weight"] == (1.0, 0.0)
    assert found["backbone.net.pos_embed"] == (pytest.approx(0.75**4), 0.0)
