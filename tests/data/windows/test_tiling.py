"""Windows cover the image, objects land where they belong, and no Detectron2 is needed."""

import subprocess
import sys

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.data.windows.tiling import (
    PAD_COLOR,
    TilingParameters,
    assign_objects,
    clip_to_window,
    compute_tile_windows,
    compute_windows,
    crop_window,
    parse_tile_name,
    tile_annotations,
    tile_name,
    visible_fractions,
)


def _square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def test_windows_by_hand():
    # Side 1800 with stride 600: 0, 600, and 1200 would leave the image, so 1000.
    windows = compute_windows(1800, 700, 800, 200)
    assert windows.tolist() == [
        [0, 0, 800, 800],
        [600, 0, 1400, 800],
        [1000, 0, 1800, 800],
    ]
    assert compute_windows(800, 800, 800, 200).tolist() == [[0, 0, 800, 800]]
    assert compute_windows(801, 10, 800, 200, 0.0).tolist() == [[0, 0, 800, 800], [1, 0, 801, 800]]


def test_small_image_keeps_its_only_windows_although_they_show_little():
    # 100 rows of 800: every window shows 12.5 %, so none qualifies and the best remain.
    assert len(compute_windows(1800, 100, 800, 200)) == 3
    assert compute_windows(5, 5, 800, 200).tolist() == [[0, 0, 800, 800]]


@settings(deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(2, 900).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1))),
)
def test_windows_cover_every_pixel_and_stay_inside(width, height, size):
    window, overlap = size
    if max(width, height) > 60 * (window - overlap):
        return
    windows = compute_windows(width, height, window, overlap, min_image_fraction=0.0)
    assert len(np.unique(windows, axis=0)) == len(windows)
    for axis, side in ((0, width), (1, height)):
        starts = np.unique(windows[:, axis])
        assert starts[0] == 0 and starts[-1] + window >= side
        assert (np.diff(starts) <= window - overlap).all()
        assert starts[-1] + window == max(side, window)


def test_rates_divide_window_and_overlap():
    parameters = TilingParameters(window=1024, overlap=200, rates=(0.5, 1.0, 1.5))
    assert parameters.sizes == [(2048, 400), (1024, 200), (682, 133)]
    windows, sizes = compute_tile_windows(2048, 2048, parameters)
    assert sizes.tolist() == (windows[:, 2] - windows[:, 0]).tolist()
    assert set(sizes.tolist()) == {2048, 1024, 682}


def test_without_padding_windows_end_at_the_border_and_keep_their_name():
    windows, sizes = compute_tile_windows(500, 300, TilingParameters(800, 200, padding=False))
    assert windows.tolist() == [[0, 0, 500, 300]] and sizes.tolist() == [800]


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": 100, "overlap": 100},
        {"window": 100, "overlap": -1},
        {"rates": ()},
        {"rates": (0.0,)},
        {"rates": (1.0, 1.0)},
        {"min_object_fraction": 1.5},
    ],
)
def test_impossible_parameters_are_refused(arguments):
    with pytest.raises(ValueError, match=r"overlap|[Rr]ates|fraction"):
        TilingParameters(**arguments)


def test_fractions_by_hand_and_against_shapely():
    window = np.array([0, 0, 100, 100])
    polygons = np.array(
        [_square(10, 10, 20), _square(90, 10, 20), _square(200, 0, 5), _square(95, 95, 10)], float
    )
    assert visible_fractions(polygons, window).tolist() == [1.0, 0.5, 0.0, 0.25]
    rng = np.random.default_rng(0)
    polygons = rng.uniform(-50, 150, (50, 1, 2)) + np.array(
        [[-20, -5], [25, -10], [20, 12], [-22, 8]], float
    )
    shapes = shapely.polygons(polygons)
    expected = shapely.area(shapely.intersection(shapes, shapely.box(*window))) / shapely.area(
        shapes
    )
    np.testing.assert_allclose(visible_fractions(polygons, window), expected, atol=1e-12)


def test_self_crossing_degenerate_and_nan_polygons_do_not_raise():
    bow_tie = [[0, 0], [20, 20], [20, 0], [0, 20]]
    line = [[-10, 50], [0, 50], [5, 50], [10, 50]]
    bad = [[np.nan, 0], [1, 0], [1, 1], [0, 1]]
    fractions = visible_fractions(np.array([bow_tie, line, bad], float), [10, 0, 100, 100])
    assert fractions.tolist() == [0.5, 0.0, 0.0]


def test_objects_below_the_threshold_are_left_out_and_cut_ones_marked():
    polygons = np.array([_square(0, 0, 10), _square(72, 0, 40), _square(71, 50, 40)], float)
    windows = np.array([[0, 0, 100, 100], [50, 0, 150, 100]])
    window_index, object_index, truncated = assign_objects(polygons, windows, 0.7)
    # 28 of 40 columns are exactly 0.7; 29 of 40 are more.
    assert list(zip(window_index, object_index, truncated)) == [
        (0, 0, False),
        (0, 1, True),
        (0, 2, True),
        (1, 1, False),
        (1, 2, False),
    ]
    window_index, object_index, _ = assign_objects(polygons, windows, 0.71)
    assert (0, 1) not in set(zip(window_index, object_index))


def test_no_objects_and_three_thousand():
    empty = assign_objects(np.zeros((0, 4, 2)), np.array([[0, 0, 10, 10]]))
    assert [len(part) for part in empty] == [0, 0, 0]
    rng = np.random.default_rng(0)
    polygons = rng.uniform(0, 3990, (3000, 1, 2)) + np.array(_square(0, 0, 10), float)
    windows = compute_windows(4000, 4000, 800, 200)
    window_index, object_index, _ = assign_objects(polygons, windows)
    assert set(object_index) == set(range(3000)), "with overlap 200 no small object is lost"
    assert (np.diff(window_index) >= 0).all()


def test_whole_image_object_larger_than_any_window_belongs_to_none():
    windows = compute_windows(4000, 4000, 800, 200)
    assert len(assign_objects(np.array([_square(0, 0, 4000)], float), windows)[0]) == 0


def test_annotations_are_in_tile_pixels_with_difficulty_two_where_cut():
    polygons = np.array([_square(110, 210, 10), _square(190, 280, 12), _square(-50, 0, 20)], float)
    ((objects, shapes, difficult),) = tile_annotations(
        polygons,
        np.array([1, 0, 0]),
        (500, 500),
        np.array([[100, 200, 200, 300]]),
        TilingParameters(100, 0),
    )
    assert objects.tolist() == [0, 1] and difficult.tolist() == [1, 2]
    assert shapes[0].tolist() == _square(10, 10, 10), "vertices keep their order"
    assert shapes[1].max() == 102, "not clipped by default"


def test_object_outside_the_image_belongs_to_no_padded_window():
    polygons = np.array([_square(300, 300, 20)], float)
    tile = tile_annotations(
        polygons, np.zeros(1, int), (200, 200), np.array([[0, 0, 800, 800]]), TilingParameters(800)
    )
    assert len(tile[0][0]) == 0


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_clipping_keeps_direction_order_and_first_vertex(start, step):
    angle = np.deg2rad(10)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    base = np.array([[-40, -8], [40, -8], [40, 8], [-40, 8]], float) @ turn.T + (80, 50)
    polygon = base[[(start + step * k) % 4 for k in range(4)]]
    clipped = clip_to_window(polygon[None], [0, 0, 100, 100])[0]
    old, new = np.roll(polygon, -1, 0) - polygon, np.roll(clipped, -1, 0) - clipped
    cosines = (old * new).sum(1) / np.linalg.norm(old, axis=1) / np.linalg.norm(new, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-9)
    visible = shapely.intersection(shapely.Polygon(polygon), shapely.box(0, 0, 100, 100))
    assert shapely.Polygon(clipped).buffer(1e-6).contains(visible)
    assert shapely.area(shapely.Polygon(clipped)) < shapely.area(shapely.Polygon(polygon))


def test_clipping_leaves_inner_objects_alone_and_marks_outer_ones():
    polygons = np.array([_square(1, 1, 5), _square(200, 200, 5)], float)
    clipped = clip_to_window(polygons, [0, 0, 100, 100])
    assert (clipped[0] == polygons[0]).all() and np.isnan(clipped[1]).all()


def test_crop_pads_on_every_side():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    tile = crop_window(image, np.array([-1, -2, 7, 6]))
    assert tile.shape == (8, 8, 3)
    assert (tile[2:6, 1:6] == image).all()
    assert (tile[0] == PAD_COLOR).all() and (tile[:, -1] == PAD_COLOR).all()
    assert (crop_window(image, np.array([10, 10, 12, 12])) == PAD_COLOR).all()
    inner = crop_window(image, np.array([1, 1, 3, 3]))
    inner[:] = 0
    assert image[1, 1, 0] != 0, "the crop is a copy"


def test_names_round_trip_even_when_the_image_name_looks_like_a_tile():
    for source in ("P0001", "P0004__1__0___0", "a b_c"):
        assert parse_tile_name(tile_name(source, 1024, 824, 0)) == (source, 1024, 824, 0)
    with pytest.raises(ValueError, match="not a tile name"):
        parse_tile_name("P0001")


def test_tiling_and_its_tool_import_without_detectron2_and_torch():
    code = (
        "import sys; sys.modules['detectron2'] = None; sys.modules['torch'] = None;"
        "import rsd2.data.windows.tiling; assert 'cv2' not in sys.modules;"
        "import rsd2.data.windows.tile_writer"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
