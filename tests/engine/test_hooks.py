"""Hooks: the average is the formula's, old checkpoints go, newest stay."""

import math
import types

import pytest
import torch
from torch import nn

from rsd2.engine import ModelEMA, PeriodicCheckpointer


def _linear(value):
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.fill_(value)
        model[1].running_mean.fill_(value)
    return model


def test_average_follows_the_formula():
    model = _linear(0.0)
    ema = ModelEMA(model, decay=0.5, warmup=2.0)
    expected = 0.0
    for update, value in enumerate((1.0, 4.0), start=1):
        decay = 0.5 * (1 - math.exp(-update / 2))
        expected = decay * expected + (1 - decay) * value
        ema.update(_linear(value))
    assert ema.model[0].weight.item() == pytest.approx(expected)
    assert ema.model[1].running_mean.item() == pytest.approx(expected)
    assert model[0].weight.item() == 0.0  # the model itself is never touched
    assert not ema.model.training and not ema.model[0].weight.requires_grad


def test_counters_are_copied_and_state_round_trips():
    ema = ModelEMA(_linear(0.0), decay=0.9, warmup=0)
    other = _linear(1.0)
    other[1].num_batches_tracked.fill_(7)
    ema.update(other)
    assert ema.model[1].num_batches_tracked.item() == 7
    again = ModelEMA(_linear(5.0), decay=0.9, warmup=0)
    again.load_state_dict(ema.state_dict())
    assert again.updates == 1
    assert again.model[0].weight.item() == pytest.approx(0.1)
    again.reset(other)
    assert again.updates == 0 and again.model[0].weight.item() == 1.0


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"warmup": -1}])
def test_average_refuses_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="decay in"):
        ModelEMA(_linear(0.0), **options)


def test_old_checkpoints_of_this_run_go_and_others_stay(tmp_path):
    class FakeCheckpointer:
        save_dir = str(tmp_path)

        def save(self, name, iteration):
            (tmp_path / f"{name}.pth").write_text(str(iteration))

    (tmp_path / "model_0000003.pth").write_text("before the resumed start")
    (tmp_path / "model_0000999.pth").write_text("of a longer run")
    hook = PeriodicCheckpointer(FakeCheckpointer(), period=2, max_to_keep=2)
    hook.trainer = types.SimpleNamespace(iter=4, start_iter=4, max_iter=10)
    hook.before_train()
    for hook.trainer.iter in range(4, 10):
        hook.after_step()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"model_{i}.pth" for i in ("0000007", "0000009", "0000999", "final")]
    with pytest.raises(ValueError, match="period >= 1"):
        PeriodicCheckpointer(FakeCheckpointer(), period=0)
