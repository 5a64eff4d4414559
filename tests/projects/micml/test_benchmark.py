"""The benchmark's baseline computes what the motion module computes, and its check can fail."""

from __future__ import annotations

import importlib

import pytest
import torch

from rsd2.layers import DeformableConv2d
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionModule


@pytest.fixture
def benchmark_module(repository, monkeypatch):
    return importlib.import_module("benchmarks.micml")


def pair(benchmark_module, **options) -> tuple[MotionModule, MotionModule]:
    """The module and the baseline with the same weights, float64."""
    options = {"channels": 6, "pool_size": 4, "num_layers": 2, **options}
    ours = MotionModule(**options).double()
    plain = benchmark_module.PlainMotion(**options).double()
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("recompute_scans", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (7, 13), (3, 2)])
@pytest.mark.parametrize(("frames", "layers"), [(5, 2), (3, 1), (4, 3)])
def test_outputs_and_gradients_are_equal(benchmark_module, shape, frames, layers, recompute_scans):
    options = {"num_frames": frames, "num_layers": layers, "recompute_scans": recompute_scans}
    modules = pair(benchmark_module, **options)
    x = torch.randn(2, 6, frames, *shape, dtype=torch.float64, requires_grad=True)
    results = [module.train()(x, 3) for module in modules]
    assert results[0].shape == (2, 6, 3, *shape)
    assert torch.allclose(*results, rtol=0, atol=1e-11)
    direction = torch.randn_like(results[0])
    gradients = [
        torch.autograd.grad(result, [x, *module.parameters()], direction)
        for result, module in zip(results, modules)
    ]
    for ours, plain in zip(*gradients):
        assert torch.allclose(ours, plain, rtol=1e-8, atol=1e-9)


def test_statistics_are_equal_where_all_frames_are_computed(benchmark_module):
    ours, plain = pair(benchmark_module)
    x = torch.randn(2, 6, 5, 8, 8, dtype=torch.float64)
    for module in (ours, plain):
        module.train()(x)
    assert all(torch.allclose(a, b) for a, b in zip(ours.buffers(), plain.buffers()))


def test_difference_is_zero_of_equal_models_and_seen_of_others(benchmark_module, toy_branches):
    models = []
    for motion in (MotionModule, MotionModule, benchmark_module.PlainMotion):
        torch.manual_seed(0)
        branches = toy_branches()
        plain = motion(8, pool_size=4, num_layers=2)
        plain.load_state_dict(branches["dynamic"].motion.state_dict())
        branches["dynamic"].motion = plain
        models.append(MICML(**branches, head_width=8).double())
    with torch.no_grad():
        for model in models[1:]:
            model.load_state_dict(models[0].state_dict())
    ours, same, plain = models
    clip = torch.randn(2, 3, 5, 32, 32, dtype=torch.float64)
    for training in (False, True):  # training moves the running statistics
        assert benchmark_module.difference(ours, same, clip, training=training) < 1e-12
        assert benchmark_module.difference(ours, plain, clip, training=training) < 1e-8
    with torch.no_grad():
        plain.dynamic.motion.query.bias += 0.1
    assert benchmark_module.difference(ours, plain, clip, training=True) > 1e-8


def test_nothing_is_timed_of_a_baseline_that_says_something_else(
    benchmark_module, toy_branches, monkeypatch
):
    def build(*, plain=False, torchvision_kernel=False):
        torch.manual_seed(int(plain))
        return MICML(**toy_branches(), head_width=8)

    monkeypatch.setattr(benchmark_module, "build", build)
    (case,) = (c for c in benchmark_module.cases(32) if "inference" in c.name)
    with pytest.raises(RuntimeError, match="the baseline's results differ by"):
        case.ours()


def test_contenders_differ_in_nothing_but_what_is_said(benchmark_module):
    ours = benchmark_module.build()
    plain = benchmark_module.build(plain=True, torchvision_kernel=True)
    states = ours.state_dict(), plain.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert type(plain.dynamic.motion) is benchmark_module.PlainMotion
    assert type(plain.dynamic.stages[0][0]) is benchmark_module.PlainConvolution
    kernels = {type(module).__name__ for module in plain.modules() if hasattr(module, "offset")}
    assert kernels == {"DeformableUnit"}
    assert not any(isinstance(module, DeformableConv2d) for module in plain.modules())


def test_a_batch_trains(benchmark_module, toy_branches):
    model = MICML(**toy_branches(), head_width=8).train()
    losses = model(benchmark_module.make_batch(32, num_objects=4))
    assert all(value.isfinite() for value in losses.values())


def test_what_is_kept_grows_with_the_area_and_shrinks_by_recomputing(benchmark_module):
    small, large = (benchmark_module.kept_bytes(side) for side in (512, 1024))
    assert 3.5 < large / small < 4  # the pooled maps do not grow
    assert benchmark_module.kept_bytes(1024, recompute_scans=True) < 0.75 * large
    assert benchmark_module.kept_bytes(1024, plain=True) > 1.25 * large
