"""The coverage rule: areas are shapely's, turned boxes are upright ones, no object is lost."""

import math

import numpy as np
import pytest
import shapely
import torch

from rsd2.projects.object_jepa.coverage import (
    CoverageRule,
    find_object_patches,
    patch_boxes,
)
from rsd2.structures import boxes_to_corners
from rsd2.testing import random_rotated_boxes

GRID, SIZE = (6, 9), 8
NUM = GRID[0] * GRID[1]


def members(boxes, rule=None, grid=GRID, size=SIZE):
    boxes = torch.as_tensor(boxes, dtype=torch.float64).view(1, -1, 5)
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool)
    return find_object_patches(
        boxes, valid, grid=grid, patch_size=size, rule=rule or CoverageRule()
    )


def strengths(boxes):
    """(M, N) of all patches that are touched."""
    found = members(boxes, CoverageRule(coverage=0, box_share=0, center=False))
    dense = torch.zeros(len(boxes), NUM, dtype=torch.float64)
    dense[found.box, found.patch] = found.strength
    return dense


@pytest.fixture(scope="module")
def boxes():
    """Of all sizes, some across the border or wholly outside of the 72 x 48 pixels."""
    return random_rotated_boxes(120, 80.0, 1.5, 60.0, seed=1, dtype=torch.float64)


def test_areas_are_those_of_shapely(boxes):
    polygons = shapely.polygons(boxes_to_corners(boxes).numpy())
    rows, columns = np.divmod(np.arange(NUM), GRID[1])
    cells = shapely.box(columns * SIZE, rows * SIZE, (columns + 1) * SIZE, (rows + 1) * SIZE)
    shared = shapely.area(shapely.intersection(polygons[:, None], cells[None]))
    expected = np.maximum(shared / SIZE**2, shared / shapely.area(polygons)[:, None])
    assert torch.allclose(strengths(boxes), torch.from_numpy(expected), atol=1e-8)

    rule = CoverageRule(coverage=0.3, box_share=0.4, center=False)
    wanted = (shared / SIZE**2 >= 0.3) | (shared / shapely.area(polygons)[:, None] >= 0.4)
    assert torch.equal(members(boxes, rule).member, torch.from_numpy(wanted))


def test_upright_boxes_have_the_overlaps_of_intervals():
    box = torch.tensor([[30.0, 21.0, 13.0, 17.0, 0.0]])
    x = (torch.arange(GRID[1] + 1) * SIZE).clamp(30 - 6.5, 30 + 6.5).diff()
    y = (torch.arange(GRID[0] + 1) * SIZE).clamp(21 - 8.5, 21 + 8.5).diff()
    share = (y[:, None] * x[None]).flatten().double()
    expected = torch.maximum(share / SIZE**2, share / (13 * 17))
    assert torch.allclose(strengths(box)[0], expected, atol=1e-12)


@pytest.mark.parametrize("angle", [90.0, -90.0, 180.0, 270.0, 360.0])
def test_a_turned_box_is_the_upright_one(boxes, angle):
    upright = torch.cat([boxes[:, :4], torch.zeros(len(boxes), 1)], dim=1)
    turned = torch.cat([upright[:, :4], torch.full((len(boxes), 1), angle)], dim=1)
    if angle % 180:
        turned[:, [2, 3]] = turned[:, [3, 2]]
    first, second = members(upright), members(turned)
    assert torch.equal(first.member, second.member)
    assert torch.allclose(first.strength, second.strength, atol=1e-9)


def test_a_quarter_of_a_patch_is_a_quarter_at_any_angle():
    corner = [[4.0, 4.0, 4.0, 4.0, angle] for angle in (0, 90, 180)]
    rule = CoverageRule(coverage=0.25, box_share=2, center=False)
    assert members(corner, rule).member[:, 0].tolist() == [True] * 3
    less = CoverageRule(coverage=0.2501, box_share=2, center=False)
    assert not members(corner, less).member.any()


def test_every_visible_centre_owns_a_patch(boxes):
    member = members(boxes).member
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 0] < 72) & (boxes[:, 1] < 48)
    assert inside.any() and not inside.all()
    place = (boxes[:, 1] // SIZE * GRID[1] + boxes[:, 0] // SIZE).long()
    assert member[inside.nonzero()[:, 0], place[inside]].all()
    # without it, an object smaller than a patch that crosses borders may have none
    tiny = [[8.0, 8.0, 2.0, 2.0, 0.0]]
    rule = CoverageRule(coverage=0.25, box_share=0.26, center=False)
    assert not members(tiny, rule).member.any()
    assert members(tiny, CoverageRule(box_share=0.26)).member.sum() == 1


def test_a_box_touches_as_many_patches_as_the_formula_says():
    # (w/P + 1) (h/P + 1), the mean over all offsets; exact on a lattice of odd offsets
    width, height, steps = 12.0, 28.0, 16
    offsets = (torch.arange(steps) + 0.5) * 16 / steps
    x, y = torch.meshgrid(offsets + 64, offsets + 64, indexing="ij")
    ones = torch.ones(steps * steps)
    boxes = torch.stack([x.flatten(), y.flatten(), width * ones, height * ones, 0 * ones], dim=1)
    touched = members(boxes, CoverageRule(coverage=0), grid=(10, 10), size=16).member
    mean = touched.sum(dim=1).double().mean().item()
    assert mean == pytest.approx((width / 16 + 1) * (height / 16 + 1), rel=1e-3)


def test_touching_a_border_is_no_overlap():
    whole = [[12.0, 12.0, 8.0, 8.0, 0.0]]
    assert members(whole, CoverageRule(coverage=0)).member.sum() == 1


def test_pairs_are_sorted_and_joined_by_image(boxes):
    images = boxes.view(3, 40, 5)
    valid = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) < 0.6
    found = find_object_patches(
        images, valid, grid=GRID, patch_size=SIZE, rule=CoverageRule(dilation=1)
    )
    assert torch.equal(found.image, valid.nonzero()[:, 0])
    assert ((found.box * NUM + found.patch).diff() > 0).all()
    assert torch.equal(found.counts, found.member.sum(dim=1))
    for index in range(3):
        own = found.image == index
        assert torch.equal(found.join()[index], found.member[own].any(dim=0))
        dense = torch.zeros(len(found.image), NUM, dtype=torch.float64)
        dense[found.box, found.patch] = found.strength
        strongest = found.reduce(found.strength, "amax", 0.0)[index]
        assert torch.equal(strongest, dense[own].amax(dim=0))
    some = found.box % 2 == 0
    assert torch.equal(found.join(some)[0], found.member[::2][found.image[::2] == 0].any(dim=0))


def test_dilation_adds_rings_inside_the_grid():
    box = [[4.0, 4.0, 8.0, 8.0, 0.0]]
    for rings in (0, 1, 2):
        flags = members(box, CoverageRule(dilation=rings)).member[0].view(GRID)
        assert flags[: rings + 1, : rings + 1].all()
        assert flags.sum() == (rings + 1) ** 2


def test_images_join_their_objects_and_skip_padding():
    boxes = torch.zeros(3, 2, 5)
    boxes[0] = torch.tensor([[12.0, 12.0, 8.0, 8.0, 0.0], [14.0, 12.0, 8.0, 8.0, 0.0]])
    boxes[2] = boxes[0]
    valid = torch.tensor([[True, True], [False, False], [False, True]])
    found = find_object_patches(boxes, valid, grid=GRID, patch_size=SIZE, rule=CoverageRule())
    scores, objects = found.reduce(found.strength, "amax", 0.0), found.join()
    first, second = GRID[1] + 1, GRID[1] + 2
    assert scores[0, [first, second]].tolist() == pytest.approx([1.0, 0.25])
    assert scores[2, [first, second]].tolist() == pytest.approx([0.75, 0.25])
    assert objects[:, [first, second]].tolist() == [[True, True], [False, False], [True, True]]
    assert not scores[1].any() and objects.sum() == 4


def test_no_boxes_and_broken_ones_are_no_objects():
    empty = find_object_patches(
        torch.zeros(2, 0, 5),
        torch.zeros(2, 0, dtype=torch.bool),
        grid=GRID,
        patch_size=SIZE,
        rule=CoverageRule(),
    )
    assert empty.member.shape == (0, NUM)
    nan = math.nan
    broken = [[nan, 4.0, 8.0, 8.0, 0.0], [4.0, 4.0, 0.0, 8.0, 0.0], [500.0, 4.0, 8.0, 8.0, 0.0]]
    found = members(broken)
    assert found.counts.tolist() == [0, 1, 0]  # the second by its centre alone
    assert not found.strength.any()


def test_patches_tile_the_image():
    boxes = patch_boxes(GRID, SIZE)
    assert boxes[0].tolist() == [4, 4, 8, 8, 0]
    assert boxes[1, :2].tolist() == [12, 4] and boxes[GRID[1], :2].tolist() == [4, 12]
    whole = members([[36.0, 24.0, 72.0, 48.0, 0.0]])
    assert whole.member.all()


@pytest.mark.parametrize("values", [{"coverage": -0.1}, {"box_share": -1}, {"dilation": -1}])
def test_rule_refuses_negative_numbers(values):
    with pytest.raises(ValueError, match="at least 0"):
        CoverageRule(**values)
