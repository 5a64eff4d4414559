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
