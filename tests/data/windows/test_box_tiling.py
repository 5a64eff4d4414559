"""Windows over images with boxes: TinyBenchmark's numbers, and properties of any tiling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.data.windows.box_tiling import BoxTiling, assign_boxes, place_windows


def test_windows_of_a_1280_x_720_image() -> None:
    windows = place_windows(720, 1280, BoxTiling())
    expected = [
        (x, y, x + 640, y + 512) for y in (0, 208) for x in (0, 590, 640)
    ]  # the third column almost doubles the second
    assert windows.tolist() == [list(row) for row in expected]


def test_small_images_are_one_tile_of_their_own_size() -> None:
    assert place_windows(200, 300, BoxTiling()).tolist() == [[0, 0, 300, 200]]
    assert place_windows(200, 700, BoxTiling()).tolist() == [[0, 0, 640, 200], [60, 0, 700, 200]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 900), st.integers(1, 900), st.integers(5, 200), st.integers(5, 200), st.data()
)
def test_windows_cover_the_image_and_stay_inside(
    width: int, height: int, across: int, down: int, data: st.DataObject
) -> None:
    overlap = (data.draw(st.integers(0, across - 1)), data.draw(st.integers(0, down - 1)))
    if min(across - overlap[0], down - overlap[1]) < 3:
        return  # thousands of windows
    tiling = BoxTiling(window=(across, down), overlap=overlap)
    windows = place_windows(height, width, tiling)
    covered = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in windows:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert (x1 - x0, y1 - y0) == (min(across, width), min(down, height))
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    # The number of windows along x by the formula of the released program.
    count = max(1, -(-(width - overlap[0]) // (across - overlap[0])))
    assert len(np.unique(windows[:, 0])) <= count


def test_a_box_belongs_to_a_window_that_shows_half_of_its_area() -> None:
    window = np.array([[0, 0, 100, 100]])
    # Of 10 x 10 px the window shows 5, 4.9 and 4.8 columns: shares .5, .49 and .48.
    boxes = np.array([[95, 0, 105, 10], [95.1, 0, 105.1, 10], [95.2, 0, 105.2, 10]])
    (tile,) = assign_boxes(boxes, window, BoxTiling(window=(100, 100), min_visible=0.6999))
    assert tile.indices.tolist() == [0, 1]
    assert tile.boxes[0].tolist() == [95, 0, 100, 10]
    (tile,) = assign_boxes(boxes, window, BoxTiling(window=(100, 100), keep_fragments=True))
    assert len(tile.indices) == 3
    assert tile.is_fragment.tolist()[::2] == [False, True]


def test_boxes_are_shifted_into_the_window() -> None:
    tiles = assign_boxes(np.array([[30, 30, 40, 50]]), np.array([[20, 10, 60, 60]]), BoxTiling())
    assert tiles[0].boxes.tolist() == [[10, 20, 20, 40]]


def test_without_boxes_and_without_contact() -> None:
    window = np.array([[0, 0, 10, 10]])
    assert len(assign_boxes(np.zeros((0, 4)), window, BoxTiling())[0].indices) == 0
    touching = np.array([[10, 0, 20, 10]])
    (tile,) = assign_boxes(touching, window, BoxTiling(keep_fragments=True, min_visible=0.0))
    assert len(tile.indices) == 0


@pytest.mark.parametrize(
    "options", [{"overlap": (640, 0)}, {"overlap": (0, -1)}, {"min_visible": 1.1}]
)
def test_impossible_tilings_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BoxTiling(**options)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        place_windows(5, 0, BoxTiling())
