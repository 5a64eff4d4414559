"""The static branch: shapes, sizes, the aggregation, the start of its upsampling."""

import pytest
import torch
from torch.nn import functional as F

from rsd2.projects.micml.dla import (
    DLA34,
    DeformableUnit,
    DLAUp,
    IDAUp,
    StaticBranch,
    bilinear_upsampling,
)

CHANNELS = (16, 32, 64, 128, 256)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_of_the_released_program():
    official, ours = DLA34(official_layout=True), DLA34()
    assert count(official) == 15_270_832
    assert count(official.level5) == 9_050_112
    assert count(official) - count(ours) == 9_050_112 + 41_728
    assert count(DLAUp(CHANNELS)) == 1_087_100
    assert count(IDAUp(CHANNELS[:3], (2, 4))) == 51_116


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (48, 16)])
def test_levels_halve_the_frame(size):
    levels = DLA34((4, 5, 6, 7, 8))(torch.randn(2, 3, *size))
    expected = [(2, c, size[0] >> j, size[1] >> j) for j, c in enumerate((4, 5, 6, 7, 8))]
    assert [tuple(level.shape) for level in levels] == expected
    maps = DLAUp((4, 5, 6, 7, 8))(levels)
    assert [tuple(m.shape) for m in maps] == expected


def test_all_parameters_learn():
    branch = StaticBranch((4, 5, 6, 7, 8))
    maps = branch(torch.randn(2, 3, 32, 32))
    sum(value.square().sum() for value in maps).backward()
    # the bias of a convolution before a BatchNorm has no effect, in the released program too
    idle = [n for n, p in branch.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(name.endswith("conv.bias") for name in idle), idle


def test_official_layout_adds_only_what_nothing_uses():
    torch.manual_seed(0)
    official = StaticBranch((4, 5, 6, 7, 8), official_layout=True).eval()
    ours = StaticBranch((4, 5, 6, 7, 8)).eval()
    keys = ours.load_state_dict(official.state_dict(), strict=False)
    assert not keys.missing_keys
    parts = {key.split(".")[1] + "." + key.split(".")[2] for key in keys.unexpected_keys}
    assert {part for part in parts if not part.startswith("level5")} == {
        "level3.shortcut",
        "level4.shortcut",
    }
    x = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(official(x), ours(x)))


@pytest.mark.parametrize("factor", [2, 4])
def test_upsampling_starts_bilinear(factor):
    x = torch.randn(1, 3, 6, 7)
    up = bilinear_upsampling(3, factor)(x)
    assert up.shape == (1, 3, 6 * factor, 7 * factor)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))  # at the border zeros enter
    assert torch.allclose(up[inside], expected[inside], atol=1e-5)


def test_deformable_unit_starts_as_half_a_convolution():
    unit = DeformableUnit(3, 4)
    x = torch.randn(2, 3, 5, 6)
    expected = F.relu(unit.norm(F.conv2d(x, unit.conv.weight, padding=1) / 2))
    assert torch.allclose(unit(x), expected, atol=1e-5)


def test_aggregation_sums():
    """With identical units, map i of the running sums is the sum of maps 0..i."""
    ida = IDAUp((2, 2, 2), (2, 2))
    for parts in ("project", "up", "node"):
        setattr(ida, parts, torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()]))
    maps = [torch.randn(1, 2, 3, 3) for _ in range(3)]
    found = ida(maps)
    assert torch.equal(found[0], maps[0])
    assert torch.allclose(found[2], maps[0] + maps[1] + maps[2])
