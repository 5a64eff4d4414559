"""Filters of boxes: each alone, all off, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.projects.mutdet.box_filters import FELZENSZWALB_FILTERS, BoxFilters

BOXES = np.array(
    [
        [20, 20, 10, 5, 0],
        [20, 20, 10, 5, 3],  # nearly the first
        [60, 60, 40, 2, 30],  # long
        [50, 50, 90, 80, 0],  # most of the image
        [80, 20, 1, 1, 0],  # a pixel
    ],
    dtype=np.float32,
)
SCORES = np.array([0.5, 0.9, 0.7, 0.8, 0.7], dtype=np.float32)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (BoxFilters(), [1, 3, 2, 4, 0]),
        (BoxFilters(min_side=2), [1, 3, 2, 0]),
        (BoxFilters(min_area=50), [1, 3, 2, 0]),
        (BoxFilters(max_area_fraction=0.5), [1, 2, 4, 0]),
        (BoxFilters(max_aspect=19.9), [1, 3, 4, 0]),
        (BoxFilters(min_score=0.7), [1, 3, 2, 4]),
        (BoxFilters(duplicate_iou=0.5), [1, 3, 2, 4]),
        (BoxFilters(duplicate_iou=0.999), [1, 3, 2, 4, 0]),
        (BoxFilters(top_k=2), [1, 3]),
        (BoxFilters(max_density=3), [1, 3, 2]),
        (BoxFilters(max_density=0), [1]),
        (BoxFilters(duplicate_iou=0.5, top_k=4, max_aspect=1), [4]),
    ],
)
def test_what_is_kept_and_counted(filters: BoxFilters, kept: list[int]) -> None:
    order, removed = filters.select(BOXES, SCORES, (100, 100))
    assert order.tolist() == kept
    assert sum(removed.values()) == len(BOXES) - len(kept)
    assert all(getattr(filters, name) is not None for name in removed)


def test_no_boxes() -> None:
    for filters in (BoxFilters(), FELZENSZWALB_FILTERS):
        order, removed = filters.select(BOXES[:0], SCORES[:0], (9, 9))
        assert order.shape == (0,) and not removed


@pytest.mark.parametrize(
    "wrong", [{"max_aspect": 0.5}, {"duplicate_iou": 2}, {"top_k": 0}, {"max_area_fraction": -1}]
)
def test_values_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must lie between"):
        BoxFilters(**wrong)
