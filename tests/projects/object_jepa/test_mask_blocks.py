"""Blocks: drawn within their ranges, inside the grid, on the objects that they are meant for."""

import pytest
import torch

from rsd2.projects.object_jepa.coverage import CoverageRule, find_object_patches
from rsd2.projects.object_jepa.mask_blocks import block_sizes, draw_anchors, place_blocks

GRID = (10, 16)


@pytest.fixture
def noise():
    return torch.rand(500, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sides_of(blocks):
    maps = blocks.unflatten(2, GRID)
    return maps.any(dim=3).sum(dim=2), maps.any(dim=2).sum(dim=2)


def test_sizes_have_area_and_shape_of_their_ranges(noise):
    heights, widths = block_sizes(noise[..., :2], GRID, (0.15, 0.2), (0.75, 1.5))
    area = heights * widths / 160.0
    assert area.min() > 0.1 and area.max() < 0.25
    assert area.mean().item() == pytest.approx(0.175, abs=0.01)
    # scale and aspect are drawn apart
    logs = torch.stack([area.flatten(), (heights / widths).flatten()])
    assert torch.corrcoef(logs)[0, 1].abs() < 0.1
    assert (heights > widths).any() and (heights < widths).any()


def test_a_block_of_known_size_is_that_rectangle():
    noise = torch.tensor([[[0.0, 0.0]], [[0.9999, 0.9999]]], dtype=torch.float64)
    sizes = torch.full((2, 1), 3), torch.full((2, 1), 5)
    blocks = place_blocks(noise, sizes, GRID).unflatten(2, GRID)
    assert blocks[0, 0, :3, :5].all() and blocks[1, 0, -3:, -5:].all()
    assert blocks.sum() == 30


def test_blocks_lie_inside_and_reach_every_place(noise):
    sizes = block_sizes(noise[..., :2], GRID, (0.15, 0.2), (0.75, 1.5))
    blocks = place_blocks(noise[..., 2:4], sizes, GRID)
    found = sides_of(blocks)
    assert torch.equal(found[0], sizes[0]) and torch.equal(found[1], sizes[1])
    assert torch.equal(blocks.sum(dim=2), sizes[0] * sizes[1])
    assert blocks.any(dim=(0, 1)).all()


def test_sides_never_leave_the_grid():
    noise = torch.full((1, 1, 2), 0.999, dtype=torch.float64)
    heights, widths = block_sizes(noise, (4, 30), (0.9, 1.0), (1.0, 2.0))
    assert heights.item() == 4 and widths.item() <= 30
    tiny = block_sizes(noise, (2, 2), (0.01, 0.01), (1.0, 1.0))
    assert tiny[0].item() == tiny[1].item() == 1


def test_anchored_blocks_cover_their_anchor(noise):
    boxes = torch.tensor([[[20.0, 20, 8, 8, 0], [100, 60, 20, 10, 30]]]).expand(500, -1, -1)
    valid = torch.ones(500, 2, dtype=torch.bool)
    valid[0] = False
    found = find_object_patches(boxes, valid, grid=GRID, patch_size=8, rule=CoverageRule())
    guided = torch.ones(500, dtype=torch.bool)
    guided[1] = False
    anchors = draw_anchors(noise[..., 4:], found, guided)
    assert (anchors[:2] == -1).all() and (anchors[2:] >= 0).all()
    union = found.member.any(dim=0)
    assert union[anchors[2:].flatten()].all()
    # each object equally often, whatever its size, and all of its patches
    counts = torch.bincount(anchors[2:].flatten(), minlength=160)
    assert ((counts > 0) == union).all()
    first = counts[found.member[0]].sum() / counts.sum()
    assert first.item() == pytest.approx(0.5, abs=0.04)

    sizes = block_sizes(noise[..., :2], GRID, (0.15, 0.2), (0.75, 1.5))
    blocks = place_blocks(noise[..., 2:4], sizes, GRID, anchors)
    assert blocks[2:].gather(2, anchors[2:, :, None]).all()
    assert torch.equal(blocks.sum(dim=2), sizes[0] * sizes[1])


def test_without_objects_nothing_is_anchored(noise):
    found = find_object_patches(
        torch.zeros(500, 0, 5),
        torch.zeros(500, 0, dtype=torch.bool),
        grid=GRID,
        patch_size=8,
        rule=CoverageRule(),
    )
    assert (draw_anchors(noise[..., 4:], found, torch.ones(500, dtype=torch.bool)) == -1).all()
