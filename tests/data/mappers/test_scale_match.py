"""Scale match: histograms by hand, the distribution that comes out, and the order it keeps."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from rsd2.data.mappers.scale_match import ScaleMatch, SizeHistogram, measure_sizes


def square(size: float) -> np.ndarray:
    return np.array([[0.0, 0.0, size, size]])


IMAGE = np.zeros((200, 300, 3), np.uint8)


def scale_of(transform: T.Transform) -> float:
    return transform.new_w / transform.w


def test_the_end_bins_hold_the_tails() -> None:
    sizes = np.concatenate([np.arange(1.0, 100.0), [5000.0]])
    histogram = SizeHistogram.from_sizes(sizes, num_bins=10)
    assert histogram.weights[0] == pytest.approx(0.1)
    assert histogram.weights[-1] == pytest.approx(0.1)
    assert histogram.edges[-1] == 5000
    inner = np.diff(histogram.edges[1:-1])
    assert inner == pytest.approx(np.full(8, inner[0]))


def test_rank_and_quantile_are_inverse() -> None:
    histogram = SizeHistogram(np.array([2.0, 4.0, 8.0, 20.0]), np.array([0.25, 0.25, 0.5]))
    assert histogram.rank(6.0) == pytest.approx(0.375)
    assert histogram.quantile(0.375) == pytest.approx(6.0)
    assert histogram.quantile(0.75) == pytest.approx(14.0)
    assert (histogram.rank(1.0), histogram.rank(50.0)) == (0.0, 1.0)


def test_bins_without_weight_are_skipped() -> None:
    histogram = SizeHistogram(np.array([2.0, 4.0, 8.0, 9.0]), np.array([0.5, 0.0, 0.5]))
    rng = np.random.default_rng(0)
    drawn = np.array([histogram.sample(rng) for _ in range(300)])
    assert not ((drawn > 4) & (drawn < 8)).any()
    assert histogram.quantile(0.25) == pytest.approx(3.0)


def test_equal_sizes() -> None:
    histogram = SizeHistogram.from_sizes([7.0] * 50)
    assert histogram.sample(np.random.default_rng(0)) == 7.0
    assert histogram.quantile(0.5) == 7.0


def test_scale_match_draws_from_the_target() -> None:
    rng = np.random.default_rng(1)
    target = SizeHistogram.from_sizes(np.exp(rng.normal(2.0, 0.4, 4000)))
    match = ScaleMatch(target, scale_limits=(0.001, 1.0))
    np.random.seed(0)
    sizes = [80 * scale_of(match.get_transform(IMAGE, square(80.0))) for _ in range(2000)]
    reached = np.quantile(sizes, (0.1, 0.5, 0.9))
    wanted = [target.quantile(q) for q in (0.1, 0.5, 0.9)]
    # the image has whole pixels: factors come in steps of 1 / 300, sizes of 80 / 300
    assert reached == pytest.approx(wanted, abs=0.5)


def test_monotone_match_keeps_order_and_ranks() -> None:
    source = SizeHistogram.from_sizes(np.linspace(20, 220, 2001))
    target = SizeHistogram.from_sizes(np.linspace(4, 44, 2001))
    match = ScaleMatch(target, source=source)
    large = np.zeros((2000, 2000, 3), np.uint8)
    sizes = (30.0, 70.0, 120.0, 200.0)
    reached = [size * scale_of(match.get_transform(large, square(size))) for size in sizes]
    assert reached == pytest.approx([6.0, 14.0, 24.0, 40.0], abs=0.1)


def test_the_size_of_an_image_is_the_geometric_mean() -> None:
    target = SizeHistogram.from_sizes([10.0] * 9)
    boxes = np.array([[0.0, 0.0, 10.0, 40.0], [0.0, 0.0, 80.0, 80.0]])  # sizes 20 and 80: 40
    assert scale_of(ScaleMatch(target).get_transform(IMAGE, boxes)) == pytest.approx(0.25)


def test_factors_beyond_the_limits() -> None:
    target = SizeHistogram.from_sizes([10.0] * 9)
    enlarged, shrunk = square(5.0), square(250.0)  # factors 2 and 0.04
    for boxes in (enlarged, shrunk, np.zeros((0, 4))):
        assert scale_of(ScaleMatch(target).get_transform(IMAGE, boxes)) == 0.25
    clipping = ScaleMatch(target, default_scale=None)
    assert scale_of(clipping.get_transform(IMAGE, enlarged)) == 1.0
    assert scale_of(clipping.get_transform(IMAGE, shrunk)) == pytest.approx(0.1)
    assert scale_of(clipping.get_transform(IMAGE, np.zeros((0, 4)))) == 1.0


def test_works_within_detectron2s_augmentations() -> None:
    target = SizeHistogram.from_sizes([10.0] * 9)
    item = T.AugInput(IMAGE, boxes=square(40.0))
    T.AugmentationList([ScaleMatch(target)])(item)
    assert item.image.shape == (50, 75, 3)
    assert item.boxes.tolist() == [[0, 0, 10, 10]]


def test_a_registered_data_set_stands_for_its_sizes() -> None:
    boxes = [{"bbox": [0, 0, s, s], "bbox_mode": BoxMode.XYWH_ABS} for s in (3.0, 4.0, 5.0, 9.0)]
    records = {"scale_match_target": [{"annotations": boxes}], "scale_match_empty": []}
    try:
        for name, dicts in records.items():
            DatasetCatalog.register(name, lambda dicts=dicts: dicts)
        measured = ScaleMatch("scale_match_target").target
        expected = SizeHistogram.from_sizes([3.0, 4.0, 5.0, 9.0])
        np.testing.assert_array_equal(measured.edges, expected.edges)
        np.testing.assert_array_equal(measured.weights, expected.weights)
        with pytest.raises(ValueError, match="scale_match_empty has no object"):
            ScaleMatch(expected, source="scale_match_empty")
    finally:
        for name in records:
            DatasetCatalog.remove(name)


def test_sizes_of_a_data_set_leave_out_what_is_ignored() -> None:
    corners = {"bbox": [2, 2, 6, 11], "bbox_mode": BoxMode.XYXY_ABS}
    square = {"bbox": [0, 0, 8, 8], "bbox_mode": BoxMode.XYWH_ABS}
    flags = [{"ignore": True}, {"uncertain": True}, {"iscrowd": 1}]
    annotations = [corners, *({**square, **flag} for flag in flags)]
    assert measure_sizes([{"annotations": annotations}, {}]).tolist() == [6.0]


@pytest.mark.parametrize("sizes", [[], [0.0], [np.nan], [-1.0, 5.0]])
def test_sizes_that_cannot_be(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        SizeHistogram.from_sizes(sizes)


@pytest.mark.parametrize("options", [{"scale_limits": (1.0, 0.1)}, {"num_draws": 0}])
def test_arguments_that_cannot_be(options: dict) -> None:
    with pytest.raises(ValueError, match="scale_limits"):
        ScaleMatch(SizeHistogram.from_sizes([5.0]), **options)


@pytest.mark.parametrize(
    ("edges", "weights"), [([1, 2, 3], [1.0]), ([3, 2], [1.0]), ([1, 2], [0.5]), ([1, 2], [-1.0])]
)
def test_histograms_that_cannot_be(edges: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError):
        SizeHistogram(np.array(edges), np.array(weights))
