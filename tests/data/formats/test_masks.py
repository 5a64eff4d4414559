"""Masks as runs: the same pixels as pycocotools', the largest part, and damaged ones."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from rsd2.data.formats.masks import coco_mask_corners, mask_corners, unpack_counts
from rsd2.data.formats.rectangles import smallest_rectangle


def runs_of(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.T.reshape(-1), [0]])
    places = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], places, [mask.size]]))
    return lengths[: -1 if lengths[-1] == 0 and len(lengths) > 1 else None].tolist()


def test_runs_of_both_kinds_are_what_pycocotools_makes_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(30):
        height, width = rng.integers(5, 60, 2)
        mask = np.zeros((height, width), np.uint8)
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = 1
        packed = coco_mask.encode(np.asfortranarray(mask))
        text = packed["counts"].decode()
        runs = unpack_counts(text)
        decoded = coco_mask.decode(
            coco_mask.frPyObjects({"counts": runs, "size": [height, width]}, height, width)
        )
        assert (decoded == mask).all()

        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        for counts in (text, runs, runs_of(mask)):
            corners = coco_mask_corners({"counts": counts, "size": [int(height), int(width)]})
            points = np.reshape(corners, (4, 2))
            np.testing.assert_allclose([*points.min(0), *points.max(0)], box, atol=1e-9)


def test_the_largest_part_counts_and_rows_are_not_columns() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:4, 3:5] = 1
    mask[10:13, 8:25] = 1
    corners = np.reshape(coco_mask_corners({"counts": runs_of(mask), "size": [20, 30]}), (4, 2))
    assert sorted(corners.round(9).tolist()) == [[8, 10], [8, 13], [25, 10], [25, 13]]
    by_rows = np.reshape(mask_corners(runs_of(mask.T), 30, 20, by_columns=False), (4, 2))
    assert sorted(by_rows.round(9).tolist()) == sorted(corners.round(9).tolist())


def test_a_turned_mask_gets_a_turned_rectangle() -> None:
    y, x = np.mgrid[:100, :120] + 0.5
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = (x - 60) * cos + (y - 50) * sin, -(x - 60) * sin + (y - 50) * cos
    mask = ((abs(along) < 40) & (abs(across) < 12)).astype(np.uint8)
    corners = coco_mask_corners({"counts": runs_of(mask), "size": [100, 120]})
    cx, cy, *sides, angle = smallest_rectangle(np.reshape(corners, (4, 2)))
    assert (cx, cy) == pytest.approx((60, 50), abs=1)
    assert sorted(sides) == pytest.approx([24, 80], abs=2.5)
    assert np.degrees(angle) % 90 == pytest.approx(30, abs=1.5)


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([10, 5], [20, 30]),
        ([600], [20, 30]),
        ([-5, 605], [20, 30]),
        ([0, 10**12], [10**6, 10**6]),
        ([1, 10**400], [20, 30]),
        ([1.5, 598.5], [20, 30]),
        ("~~~", [20, 30]),
        ("o" * 40, [20, 30]),
        ("oo", [20, 30]),
        ([], [0, 0]),
    ],
)
def test_damaged_masks_are_errors(counts: object, size: list[int]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        coco_mask_corners({"counts": counts, "size": size})
