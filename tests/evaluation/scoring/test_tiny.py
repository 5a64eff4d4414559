"""TinyPerson's AP and miss rate: each rule by hand, and all of them against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from rsd2.evaluation import BoxDetections, BoxTruth, TinyProtocol, score_miss_rate, score_tiny
from rsd2.evaluation.scoring.tiny import MISS_RATE_SIZE_RANGES, TINY_SIZE_RANGES

from ..cases import upright_case

RANGES = list(TINY_SIZE_RANGES)


@pytest.fixture(scope="module")
def oracle(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("tests/evaluation/scoring/tiny_oracle.py")


def make_object(x: float, y: float, width: float, height: float, **more) -> dict:
    fields = {"box": (x, y, x + width, y + height), "area": width * height}
    return {**fields, "ignore": False, "uncertain": False, **more}


def make_detection(x: float, y: float, width: float, height: float, score: float) -> dict:
    return {"box": (x, y, x + width, y + height), "score": score}


def to_arrays(classes: dict[str, list[dict]]) -> tuple[BoxTruth, BoxDetections]:
    """Images of each class, as the oracle takes them, as arrays of all classes."""
    images = [
        (number, label, image)
        for label, images in enumerate(classes.values())
        for number, image in enumerate(images)
    ]
    images.sort(key=lambda item: item[:2])
    return upright_case(
        [{**o, "image": n, "label": k} for n, k, image in images for o in image["objects"]],
        [(n, k, d["score"], d["box"]) for n, k, image in images for d in image["detections"]],
        len(next(iter(classes.values()))),
        len(classes),
    )


def ap(objects: list[dict], detections: list[dict], size: str = "tiny", **options) -> float:
    """AP50 of one image of one class."""
    protocol = TinyProtocol(iou_thresholds=(0.5,), **options)
    data = to_arrays({"person": [{"objects": objects, "detections": detections}]})
    return float(score_tiny(*data, protocol).precision[0, RANGES.index(size), 0])


PERSON = make_object(10, 10, 4, 6)


def test_size_ends_belong_to_both_ranges() -> None:
    eight = make_object(0, 0, 8, 8)
    hit = [make_detection(0, 0, 8, 8, 0.9)]
    values = {name: ap([eight], hit, name) for name in RANGES}
    assert {name for name, value in values.items() if value == 1} == {
        "all", "tiny", "tiny1", "tiny2",
    }  # fmt: skip
    assert all(math.isnan(values[name]) for name in ("tiny3", "small", "reasonable"))


def test_region_takes_any_number_of_detections() -> None:
    region = make_object(50, 50, 40, 40, ignore=True)
    inside = [make_detection(52 + 5 * k, 60, 4, 4, 0.95) for k in range(5)]
    hit = make_detection(10, 10, 4, 6, 0.9)
    assert ap([PERSON, region], [*inside, hit]) == 1
    # Without the rule the same finds are mistakes, ranked above the one that is right.
    assert ap([PERSON, region], [*inside, hit], use_iod=False) == pytest.approx(1 / 6)


def test_share_of_the_detection_must_reach_the_threshold() -> None:
    region = make_object(50, 50, 40, 40, ignore=True)
    hit = make_detection(10, 10, 4, 6, 0.5)
    half_in = make_detection(48, 60, 4, 4, 0.9)  # exactly half of it
    less = make_detection(47.9, 60, 4, 4, 0.9)
    assert ap([PERSON, region], [half_in, hit]) == 1
    assert ap([PERSON, region], [less, hit]) == pytest.approx(0.5)


def test_uncertain_objects_are_ignored_by_default() -> None:
    unsure = make_object(30, 30, 6, 6, uncertain=True)
    hits = [make_detection(30, 30, 6, 6, 0.9), make_detection(10, 10, 4, 6, 0.8)]
    assert ap([PERSON, unsure], hits[1:]) == 1
    assert ap([PERSON, unsure], hits) == 1
    assert ap([PERSON, unsure], hits[1:], ignore_uncertain=False) == pytest.approx(51 / 101)


def test_mistakes_inside_larger_people_are_forgiven_in_tiny_only() -> None:
    large = make_object(100, 100, 30, 30)
    hits = [make_detection(110, 110, 5, 5, 0.9), make_detection(10, 10, 4, 6, 0.8)]
    assert ap([PERSON, large], hits, "tiny") == 1
    # In "all" it is a mistake, and the large person is missed: precision 1/2 up to recall 1/2.
    assert ap([PERSON, large], hits, "all") == pytest.approx(0.5 * 51 / 101)


def test_detections_of_another_size_do_not_count() -> None:
    wild = make_detection(200, 200, 25, 25, 0.99)
    assert ap([PERSON], [wild, make_detection(10, 10, 4, 6, 0.5)], "tiny") == 1
    assert ap([PERSON], [wild, make_detection(10, 10, 4, 6, 0.5)], "all") == pytest.approx(0.5)


def test_most_detections_are_cut_by_score() -> None:
    wrong = [make_detection(100 + 10 * k, 100, 5, 5, 0.9) for k in range(3)]
    hit = make_detection(10, 10, 4, 6, 0.5)
    assert ap([PERSON], [*wrong, hit], max_detections=4) == pytest.approx(0.25)
    assert ap([PERSON], [*wrong, hit], max_detections=3) == 0


def test_each_object_is_found_once_and_by_the_better_scored() -> None:
    twice = [make_detection(10, 10, 4, 5, 0.9), make_detection(10, 10, 4, 6, 0.8)]
    truth, found = to_arrays({"person": [{"objects": [PERSON], "detections": twice}]})
    scores = score_tiny(truth, found, TinyProtocol(iou_thresholds=(0.5, 0.9)))
    tiny = RANGES.index("tiny")
    assert scores.precision[0, tiny, 0] == 1  # the copy comes second
    assert scores.precision[1, tiny, 0] == pytest.approx(0.5)  # at 0.9 only the second one is close


def test_refused_detections_take_their_second_choice() -> None:
    objects = [make_object(0, 0, 10, 10), make_object(2, 0, 10, 10)]
    # Both prefer the second object; the weaker one must be content with the first.
    detections = [make_detection(2, 0, 10, 10, 0.9), make_detection(1.5, 0, 10, 10, 0.8)]
    assert ap(objects, detections, "tiny") == 1


def test_miss_rate_by_hand() -> None:
    # Ten images with one person each; eight are found, one mistake comes between the 4th and 5th.
    images = []
    for k in range(10):
        detections = [make_detection(10, 10, 4, 6, 1 - 0.1 * k)] if k < 8 else []
        images.append({"objects": [PERSON], "detections": detections})
    images[9]["detections"] = [make_detection(60, 60, 5, 5, 0.65)]
    data = to_arrays({"person": images})
    rates = score_miss_rate(*data, TinyProtocol(iou_thresholds=(0.5,)))
    # 0.1 false positives per image are first allowed at the fifth point, 10 ** -1.
    expected = math.exp((4 * math.log(0.6) + 5 * math.log(0.2)) / 9)
    assert rates[0, list(MISS_RATE_SIZE_RANGES).index("tiny"), 0] == pytest.approx(expected)


def test_miss_rate_of_a_ranking_that_starts_too_far_right() -> None:
    wrong_first = [make_detection(60, 60, 5, 5, 0.9), make_detection(10, 10, 4, 6, 0.8)]
    data = to_arrays({"person": [{"objects": [PERSON], "detections": wrong_first}]})
    tiny = list(MISS_RATE_SIZE_RANGES).index("tiny")
    # One mistake on one image: only the last of the nine points allows it.
    fixed = score_miss_rate(*data, TinyProtocol(iou_thresholds=(0.5,)))[0, tiny, 0]
    assert fixed == pytest.approx(math.exp(math.log(1e-10) / 9))
    quirk = score_miss_rate(*data, TinyProtocol(iou_thresholds=(0.5,), miss_rate_quirks=True))
    assert quirk[0, tiny, 0] == pytest.approx(1e-10)


def test_without_detections_everything_is_missed() -> None:
    truth, found = to_arrays({"person": [{"objects": [PERSON], "detections": []}]})
    scores = score_tiny(truth, found, TinyProtocol())
    tiny = RANGES.index("tiny")
    assert (scores.precision[:, tiny] == 0).all()
    assert (scores.recall[:, tiny] == 0).all()
    assert (score_miss_rate(truth, found, TinyProtocol())[:, 1] == 1).all()


def test_without_objects_nothing_is_defined() -> None:
    images = [{"objects": [], "detections": [make_detection(1, 1, 5, 5, 0.5)]}]
    data = to_arrays({"person": images})
    assert np.isnan(score_tiny(*data, TinyProtocol()).precision).all()
    assert np.isnan(score_miss_rate(*data, TinyProtocol())).all()


def test_detections_without_area_are_mistakes_unless_the_range_excludes_them() -> None:
    flat = make_detection(10, 10, 0, 6, 0.9)
    hit = make_detection(10, 10, 4, 6, 0.8)
    assert ap([PERSON], [flat, hit], "all") == 1
    data = to_arrays({"person": [{"objects": [PERSON], "detections": [flat, hit]}]})
    wide = TinyProtocol(iou_thresholds=(0.5,), size_ranges={"any": (0.0, 1e5)})
    assert score_tiny(*data, wide).precision[0, 0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_thresholds": (0.0,)}, "iou_thresholds"),
        ({"iou_thresholds": ()}, "iou_thresholds"),
        ({"size_ranges": {"odd": (5.0, 5.0)}}, "odd"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_impossible_protocols_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyProtocol(**options)


def random_image(rng: np.random.Generator, integral: bool) -> dict:
    """A crowded image with flags; integral boxes make many ties of IoU and of thresholds."""

    def boxes(count: int) -> np.ndarray:
        table = np.concatenate(
            [rng.uniform(0, 60, (count, 2)), np.exp(rng.uniform(0.3, 3.8, (count, 2)))], axis=1
        )
        return np.ceil(table) if integral else table

    objects = [
        make_object(*row, ignore=bool(rng.uniform() < 0.15), uncertain=bool(rng.uniform() < 0.15))
        for row in boxes(rng.integers(0, 14)).tolist()
    ]
    rows = boxes(rng.integers(0, 12)).tolist()
    for item in objects:
        for _ in range(rng.integers(0, 3)):
            x0, y0, x1, y1 = item["box"]
            moved = np.array([x0, y0, x1 - x0, y1 - y0]) + rng.normal(0, 1.2, 4)
            moved = np.round(moved) if integral else moved
            rows.append([*moved[:2], *np.maximum(moved[2:], 1)])
    scores = rng.permutation(len(rows)) if not integral else rng.integers(0, 6, len(rows))
    detections = [make_detection(*row, 0.01 + 0.02 * s) for row, s in zip(rows, scores.tolist())]
    return {"objects": objects, "detections": detections}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("use_iod", [True, False])
def test_equals_plain_loops(oracle: ModuleType, seed: int, use_iod: bool) -> None:
    rng = np.random.default_rng(seed)
    classes = {name: [random_image(rng, seed % 2 == 1) for _ in range(6)] for name in ("a", "b")}
    truth, found = to_arrays(classes)
    cut = (200, 5)[seed % 3 == 0]
    protocol = TinyProtocol(max_detections=cut, use_iod=use_iod, ignore_uncertain=seed % 4 != 0)
    scores = score_tiny(truth, found, protocol)
    for t, threshold in enumerate(protocol.iou_thresholds):
        for a, limits in enumerate(TINY_SIZE_RANGES.values()):
            for k, images in enumerate(classes.values()):
                expected = oracle.average_precision(
                    images, threshold, limits, cut, use_iod, protocol.ignore_uncertain
                )
                values = (scores.precision[t, a, k], scores.recall[t, a, k])
                assert values == pytest.approx(expected, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("quirks", [False, True])
def test_miss_rate_equals_plain_loops(oracle: ModuleType, seed: int, quirks: bool) -> None:
    rng = np.random.default_rng(100 + seed)
    images = [random_image(rng, seed % 2 == 1) for _ in range(5 + 20 * (seed % 2))]
    truth, found = to_arrays({"person": images})
    protocol = TinyProtocol(miss_rate_quirks=quirks)
    rates = score_miss_rate(truth, found, protocol)
    for t, threshold in enumerate(protocol.iou_thresholds):
        for a, limits in enumerate(MISS_RATE_SIZE_RANGES.values()):
            expected = oracle.miss_rate(images, threshold, limits, quirks)
            assert rates[t, a, 0] == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_order_of_the_detections_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    truth, found = to_arrays({"person": [random_image(rng, False) for _ in range(8)]})
    first = score_tiny(truth, found, TinyProtocol()).precision
    shuffled = found.select(rng.permutation(len(found.scores)))
    # scores of different images may be equal: those keep the order of their images
    np.testing.assert_array_equal(score_tiny(truth, shuffled, TinyProtocol()).precision, first)
