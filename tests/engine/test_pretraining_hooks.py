"""Hooks of pre-training: the average is the closed form, decay grows, both go on after a stop."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf
from torch import nn

from rsd2.engine import RunError, TargetUpdate, WeightDecaySchedule, move_average
from rsd2.engine.defaults import build_hooks
from rsd2.engine.train_loop import Trainer

STEPS = 6


class Distilled(nn.Module):
    """Fits a line, and keeps an average of it."""

    def __init__(self):
        super().__init__()
        self.online, self.target = nn.Linear(2, 1), nn.Linear(2, 1).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.seen, self.momenta, self.weights = [], [], []

    def forward(self, batch):
        self.seen.append(self.progress)
        return {"loss": (self.online(batch) - 1).square().mean()}

    def update_target(self, momentum):
        self.momenta.append(momentum)
        self.weights.append(self.online.weight.detach().clone())
        move_average(self.target, self.online, momentum)


def batches():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(4, 2, generator=generator)


def make(*momentum):
    torch.manual_seed(3)
    model = Distilled()
    groups = [
        {"params": [model.online.weight], "weight_decay": 0.04},
        {"params": [model.online.bias], "weight_decay": 0.0},
    ]
    trainer = Trainer(model, batches(), torch.optim.AdamW(groups, lr=0.1))
    schedule = WeightDecaySchedule(CosineParamScheduler(1.0, 10.0))
    trainer.register_hooks([TargetUpdate(*momentum), schedule])
    return model, trainer


def test_target_is_the_closed_form_of_the_average():
    model, trainer = make(0.5)
    first = model.online.weight.detach().clone()
    trainer.train(0, STEPS)
    assert model.momenta == pytest.approx([0.5 + 0.5 * k / STEPS for k in range(STEPS)])
    assert model.seen == pytest.approx([k / STEPS for k in range(STEPS)])
    expected = math.prod(model.momenta) * first
    for k, weight in enumerate(model.weights):
        expected = expected + (1 - model.momenta[k]) * math.prod(model.momenta[k + 1 :]) * weight
    assert torch.allclose(model.target.weight, expected, atol=1e-6)
    assert not torch.allclose(model.target.weight, model.online.weight, atol=1e-3)
    assert model.target.weight.grad is None


def test_a_half_life_is_the_steps_in_which_half_is_forgotten():
    model, trainer = make(0.9, 1.0, STEPS / 2)
    trainer.train(0, STEPS)
    assert math.prod(model.momenta) == pytest.approx(0.25)
    assert max(model.momenta) == min(model.momenta)
    with pytest.raises(RunError, match="half_life must be more than 0"):
        TargetUpdate(half_life=0)


def test_momentum_one_stands_still_and_zero_copies():
    model, _ = make()
    before = model.target.weight.clone()
    with torch.no_grad():
        model.online.weight.add_(1.0)
    move_average(model.target, model.online, 1.0)
    assert torch.equal(model.target.weight, before)
    move_average(model.target, model.online, 0.0)
    assert torch.allclose(model.target.weight, before + 1)


def test_a_target_that_never_moves_is_named_before_the_first_step(caplog, monkeypatch):
    # whatever an earlier test made of the loggers above it, this one is heard
    logger = logging.getLogger("rsd2.engine.pretraining_hooks")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    model, trainer = make(1.0, 1.0)
    first = model.target.weight.clone()
    trainer.train(0, STEPS)
    assert "the target keeps its initial weights" in caplog.text
    assert torch.equal(model.target.weight, first)

    caplog.clear()
    make(0.5)[1].train(0, STEPS)
    assert "initial weights" not in caplog.text


def test_decay_grows_where_there_is_one_and_survives_a_stop():
    whole, trainer = make()
    trainer.train(0, STEPS)
    factor = 10 + (1 - 10) * (1 + math.cos(math.pi * (STEPS - 1) / STEPS)) / 2
    decays = [group["weight_decay"] for group in trainer.optimizer.param_groups]
    assert decays == pytest.approx([0.04 * factor, 0.0])

    half, first = make()
    first.train(0, 3)
    resumed, second = make()
    resumed.load_state_dict(half.state_dict())
    state = first.optimizer.state_dict()
    second.optimizer.load_state_dict(state)
    second.train(3, STEPS)
    assert second.optimizer.param_groups[0]["initial_weight_decay"] == 0.04
    assert second.optimizer.param_groups[0]["weight_decay"] == pytest.approx(decays[0])
    assert resumed.momenta == pytest.approx(whole.momenta[3:])


@pytest.mark.parametrize("values", [(-0.1, 1.0), (0.9, 1.1)])
def test_momentum_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=r"momentum lies in \[0, 1\]"):
        TargetUpdate(*values)


def train_config(tmp_path, hooks):
    values = {"output_dir": str(tmp_path), "max_iter": 2, "log_period": 1, "eval_period": 0}
    cfg = OmegaConf.create(values, flags={"allow_objects": True})
    cfg.checkpointer = {"period": 1, "max_to_keep": 1}
    cfg.hooks = hooks
    return cfg


def test_a_config_names_further_hooks(tmp_path):
    hooks = {"target": L(TargetUpdate)(start=0.9), "decay": None}
    built = build_hooks(
        train_config(tmp_path, hooks), SimpleNamespace(save_dir=str(tmp_path)), None, dict
    )
    assert [type(hook) for hook in built].count(TargetUpdate) == 1
    wrong = {"speed": L(CosineParamScheduler)(start_value=1.0, end_value=0.0)}
    with pytest.raises(
        RunError, match=r"train\.hooks\.speed is a CosineParamScheduler, not a hook"
    ):
        build_hooks(
            train_config(tmp_path, wrong), SimpleNamespace(save_dir=str(tmp_path)), None, dict
        )
