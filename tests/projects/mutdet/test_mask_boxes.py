"""Masks to boxes: values by hand, against a search over all directions, and the official variant.

Shapes: h, w of a mask.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsd2.projects.mutdet.mask_boxes import masks_to_boxes, minimum_area_rectangle
from rsd2.projects.mutdet.proposals import MaskProposal
from rsd2.structures import boxes_to_corners


def proposal(rows: list[str], x: int = 0, y: int = 0, score: float = 1.0) -> MaskProposal:
    """A mask drawn with # for its pixels."""
    return MaskProposal(np.array([[c == "#" for c in row] for row in rows]), x, y, score)


def drawn(box: np.ndarray, size: tuple[int, int] = (80, 100)) -> np.ndarray:
    """Mask of the pixels whose centres lie in a box."""
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    corners = boxes_to_corners(torch.from_numpy(box)).numpy()
    along, across = corners[1] - corners[0], corners[3] - corners[0]
    u = ((xs - corners[0, 0]) * along[0] + (ys - corners[0, 1]) * along[1]) / (along @ along)
    v = ((xs - corners[0, 0]) * across[0] + (ys - corners[0, 1]) * across[1]) / (across @ across)
    return (u >= 0) & (u < 1) & (v >= 0) & (v < 1)


def test_pixels_are_squares_and_windows_have_places() -> None:
    masks = [
        proposal(["#"], x=3, y=5),
        proposal(["....", ".###", ".###", "...."], x=10, y=20),
        proposal(["#", "#", "#", "#"], x=0, y=0, score=0.5),
        proposal(["...", "..."]),
    ]
    result = masks_to_boxes(masks, (50, 50))
    expected = [[3.5, 5.5, 1, 1, 0], [12.5, 22, 3, 2, 0], [0.5, 2, 4, 1, -90]]
    np.testing.assert_allclose(result.boxes[:, :4], np.array(expected)[:, :4], atol=1e-5)
    np.testing.assert_allclose(np.cos(np.radians(2 * result.boxes[1:, 4])), [1, -1], atol=1e-6)
    assert result.boxes.dtype == np.float32
    assert result.scores.tolist() == [1, 1, 0.5] and result.areas.tolist() == [1, 6, 4]
    assert result.degenerate == 1


def test_diagonal_of_squares() -> None:
    # The squares of a diagonal of 3 pixels reach from (5, 5) to (8, 8), sqrt(2) / 2 to each side.
    result = masks_to_boxes([proposal(["#..", ".#.", "..#"], x=5, y=5)], (20, 20))
    np.testing.assert_allclose(result.boxes[0], [6.5, 6.5, 3 * 2**0.5, 2**0.5, -45], atol=1e-4)
    # In an image of 3 x 3 its four corners, (-.5, .5) and so on, are moved onto the border.
    result = masks_to_boxes([proposal(["#..", ".#.", "..#"])], (3, 3))
    np.testing.assert_allclose(result.boxes[0], [1.5, 1.5, 2.5 * 2**0.5, 0.5**0.5, -45], atol=1e-4)


def test_the_largest_component_counts_and_corners_connect() -> None:
    rows = ["##....", "......", "...#..", "..#.#.", "...#.."]
    result = masks_to_boxes([proposal(rows)], (5, 6))
    assert result.areas.tolist() == [4]
    np.testing.assert_allclose(result.boxes[0, :4], [3.5, 3.5, 2 * 2**0.5, 2 * 2**0.5], atol=1e-4)


def test_every_pixel_square_is_inside_and_no_direction_is_smaller() -> None:
    rng = np.random.default_rng(0)
    directions = np.radians(np.arange(0, 90, 0.25))
    for _ in range(60):
        mask = np.zeros((24, 24), bool)
        y, x = rng.integers(2, 22, 2)
        for _ in range(40):  # a random walk: one component of any shape
            mask[y, x] = True
            y, x = np.clip((y, x) + rng.integers(-1, 2, 2), 0, 23)
        ys, xs = np.nonzero(mask)
        square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        points = (np.stack([xs, ys], 1)[:, None] + square).reshape(-1, 2)
        # no border to be clipped at: the image is larger
        box = masks_to_boxes([MaskProposal(mask, 20, 20, 1.0)], (64, 64)).boxes[0].astype(float)
        angle = np.radians(box[4])
        local = points + 20 - box[:2]
        along = local @ (np.cos(angle), -np.sin(angle))
        across = local @ (np.sin(angle), np.cos(angle))
        np.testing.assert_allclose([along.max(), -along.min()], box[2] / 2, atol=1e-3)
        np.testing.assert_allclose([across.max(), -across.min()], box[3] / 2, atol=1e-3)
        u = points @ np.stack([np.cos(directions), np.sin(directions)])
        v = points @ np.stack([-np.sin(directions), np.cos(directions)])
        areas = np.ptp(u, axis=0) * np.ptp(v, axis=0)
        assert box[2] * box[3] <= areas.min() + 1e-3


def test_a_drawn_box_comes_back() -> None:
    for angle in (-90, -60, -45.5, -20, 0, 13, 45, 88):
        box = np.array([50.0, 40, 40, 14, angle])
        found = masks_to_boxes([MaskProposal(drawn(box), 0, 0, 1.0)], (80, 100)).boxes[0]
        np.testing.assert_allclose(found[:2], box[:2], atol=0.8)
        np.testing.assert_allclose(found[2:4], box[2:4], atol=2.0)
        assert abs((found[4] - angle + 90) % 180 - 90) < 2


def test_corners_are_kept_to_the_image_on_all_sides() -> None:
    size = (80, 100)
    for center in ((2, 40), (98, 40), (50, 2), (50, 78), (1, 1), (99, 79)):
        for angle in (30.0, -50.0):
            box = np.array([*center, 60.0, 12.0, angle])
            mask = drawn(box, size)
            found = masks_to_boxes([MaskProposal(mask, 0, 0, 1.0)], size).boxes[0]
            official = masks_to_boxes([MaskProposal(mask, 0, 0, 1.0)], size, official=True).boxes[0]
            assert found[2] * found[3] > 0 and official[2] * official[3] > 0
            assert (found[:2] >= 0).all() and (found[:2] <= (100, 80)).all()
            # the smallest rectangle as such, unclipped, is never the smaller one
            free = masks_to_boxes([MaskProposal(mask, 200, 200, 1.0)], (500, 500)).boxes[0]
            assert found[2] * found[3] <= free[2] * free[3] * (1 + 1e-5)


def test_official_variant_uses_indices_of_the_longest_contour() -> None:
    # a full square of 25 pixels (16 on its boundary), and a bar of 20 pixels (38 steps around it)
    mask = np.zeros((10, 24), bool)
    mask[0:5, 0:5] = True
    mask[8, 2:22] = True
    ours = masks_to_boxes([MaskProposal(mask, 4, 6, 1.0)], (40, 40))
    assert ours.areas.tolist() == [25] and ours.boxes[0, 2:4].tolist() == [5, 5]
    theirs = masks_to_boxes([MaskProposal(mask, 4, 6, 1.0)], (40, 40), official=True)
    assert theirs.degenerate == 1 and len(theirs.boxes) == 0  # the bar has no area in indices
    mask[9, 2:22] = True
    theirs = masks_to_boxes([MaskProposal(mask, 4, 6, 1.0)], (40, 40), official=True)
    assert theirs.areas.tolist() == [40]
    np.testing.assert_allclose(theirs.boxes[0], [15.5, 14.5, 19, 1, 0], atol=1e-5)


@pytest.mark.parametrize("points", [[[3, 4]], [[3, 4], [3, 4], [3, 4]], [[0, 0], [2, 2], [4, 4]]])
def test_rectangles_of_points_on_a_line(points: list[list[int]]) -> None:
    corners = minimum_area_rectangle(np.array(points))
    assert corners.shape == (4, 2)
    assert corners.min() >= np.min(points) and corners.max() <= np.max(points)


def test_no_masks() -> None:
    result = masks_to_boxes([], (5, 5))
    assert result.boxes.shape == (0, 5) and result.degenerate == 0
