"""The dynamic branch: shapes, what each level sees of time, and when motion runs."""

import pytest
import torch

from rsd2.projects.micml.dynamic import AxisConvolution, DynamicBranch
from rsd2.projects.micml.motion import MotionModule


def make(motion=False) -> DynamicBranch:
    module = MotionModule(6, pool_size=4, num_layers=1) if motion else None
    return DynamicBranch((4, 5, 6), module)


def test_parameters_are_those_of_the_released_program():
    branch = DynamicBranch(motion=MotionModule())
    counts = [sum(p.numel() for p in part.parameters()) for part in branch.stages]
    assert counts == [2384, 7872, 31_104]
    assert sum(p.numel() for p in branch.aggregation.parameters()) == 89_698
    assert sum(p.numel() for p in branch.motion.parameters()) == 1_217_600


@pytest.mark.parametrize("size", [(3, 1, 1), (1, 5, 1), (1, 1, 5), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 1, 1), (3, 2, 9)], ids=str)
def test_a_convolution_along_an_axis_is_a_3d_convolution(size, shape):
    unit = AxisConvolution(2, 3, size).double()
    x = torch.randn(2, 2, *shape, dtype=torch.float64, requires_grad=True)
    leaves, results = [x, unit.conv.weight], [unit.convolve(x), unit.conv(x)]
    assert results[0].shape == (2, 3, *shape)
    assert torch.allclose(*results, rtol=0, atol=1e-12)
    direction = torch.randn_like(results[0])
    for a, b in zip(*(torch.autograd.grad(y, leaves, direction) for y in results)):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frames", [3, 4, 5])
def test_shapes(frames):
    maps = make()(torch.randn(2, 3, frames, 16, 24), with_motion=False)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 24), (2, 5, 8, 12), (2, 6, 4, 6)]


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_other_lengths_are_an_error(frames):
    with pytest.raises(ValueError, match=f"3 to 5 frames, got {frames}"):
        make()(torch.randn(1, 3, frames, 16, 16), with_motion=False)


def test_the_finest_level_sees_four_frames_and_the_others_all():
    """Three are pooled, and every convolution in time looks one further."""
    branch = make().eval()
    clip = torch.randn(1, 3, 5, 16, 16, requires_grad=True)
    seen = []
    x = clip
    for index, stage in enumerate(branch.stages):
        x = stage(torch.nn.functional.max_pool3d(x, (1, 2, 2)) if index else x)
        (gradient,) = torch.autograd.grad(x[:, :, :3].sum(), clip, retain_graph=True)
        seen.append(gradient.abs().amax(dim=(0, 1, 3, 4)).gt(0).tolist())
    assert seen == [[True] * 4 + [False], [True] * 5, [True] * 5]


def test_the_order_of_the_frames_matters():
    branch = make().eval()
    clip = torch.randn(1, 3, 5, 16, 16)
    with torch.no_grad():
        pairs = zip(branch(clip, with_motion=False), branch(clip.flip(2), with_motion=False))
    assert not any(torch.allclose(a, b) for a, b in pairs)


def test_motion_runs_only_when_asked_for():
    torch.manual_seed(0)
    branch = make(motion=True).eval()
    clip = torch.randn(1, 3, 5, 16, 16)
    with torch.no_grad():
        off, on = (branch(clip, with_motion=flag) for flag in (False, True))
        motion, branch.motion = branch.motion, None
        without = branch(clip, with_motion=True)
    assert motion is not None and all(torch.equal(a, b) for a, b in zip(off, without))
    assert not any(torch.allclose(a, b) for a, b in zip(off, on))


def test_motion_needs_all_its_frames():
    with pytest.raises(ValueError, match="motion module is made for 5 frames, got 4"):
        make(motion=True)(torch.randn(1, 3, 4, 16, 16), with_motion=True)
