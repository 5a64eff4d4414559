"""Counting of moving objects and points: by hand, against slow loops, and what must not matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rsd2.evaluation import (
    MOVING_OBJECT_PROTOCOLS,
    BoxDetections,
    BoxTruth,
    MovingObjectProtocol,
    score_moving_objects,
    score_points,
)
from rsd2.evaluation.scoring.moving_object import count_matches

from ..cases import upright_case
from . import moving_object_oracle as oracle

IOU, DISTANCE = (MOVING_OBJECT_PROTOCOLS[name] for name in ("micml", "distance5"))


def make_data(frames: Sequence[dict]) -> tuple[BoxTruth, BoxDetections, list[str]]:
    """Frames as of the oracle, in the form of the library."""
    truth, detections = upright_case(
        [{"image": k, "box": box} for k, frame in enumerate(frames) for box in frame["objects"]],
        [(k, 0, s, box) for k, frame in enumerate(frames) for box, s in frame["detections"]],
        len(frames),
    )
    return truth, detections, [frame["video"] for frame in frames]


def random_frames(seed: int, num_frames: int = 8, most: int = 5, side: float = 30) -> list[dict]:
    """Crowded little frames of three videos."""
    random = np.random.default_rng(seed)

    def box() -> tuple:
        x, y = random.uniform(0, side, 2)
        w, h = random.uniform(3, 9, 2)
        return (x, y, x + w, y + h)

    frames = []
    for number in range(num_frames):
        objects = [box() for _ in range(random.integers(1, most))]
        near = [tuple(np.array(b) + random.normal(0, 2, 4)) for b in objects]
        near = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in near]
        found = [
            *near[: random.integers(len(near) + 1)],
            *(box() for _ in range(random.integers(3))),
        ]
        detections = [(b, float(random.uniform())) for b in found]
        frames.append({"video": "acb"[number % 3], "objects": objects, "detections": detections})
    return frames


def test_overlap_and_distance_by_hand() -> None:
    """Overlapping corners count by overlap, but the centres are 6 px apart."""
    objects = np.array([[10.0, 10, 15, 15], [30, 30, 36, 35]])
    found = np.array([[14.5, 14.5, 19, 19], [31, 31, 36, 35], [100, 100, 105, 105]])
    assert count_matches(found, objects, IOU) == 2
    assert count_matches(found, objects, DISTANCE) == 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("rule", "threshold"), [("iou", 0.0), ("iou", 0.2), ("distance", 5.0), ("distance", 2.0)]
)
def test_against_loops_over_all_assignments(seed: int, rule: str, threshold: float) -> None:
    frames = random_frames(seed)
    truth, detections, videos = make_data(frames)
    protocol = MovingObjectProtocol("test", rule, threshold, (0.1, 0.5))
    scores = score_moving_objects(truth, detections, videos, protocol)
    assert scores.videos == ("a", "c", "b")
    means = []
    for s, score in enumerate(protocol.score_thresholds):
        expected = oracle.video_rates(frames, rule, threshold, score)
        for v, video in enumerate(scores.videos):
            assert scores.rates()[s, v] == pytest.approx(expected[video], abs=1e-12)
        means.append(np.mean(list(expected.values()), axis=0))
        assert scores.means()[s] == pytest.approx(means[-1], abs=1e-12)
    assert scores.best() == int(np.argmax([mean[2] for mean in means]))


def test_thresholds_are_not_included() -> None:
    """5.0 px is not near enough, a score of 0.3 not high enough, and touching is no overlap."""
    objects = np.array([[0.0, 0, 6, 6]])
    assert count_matches(objects + [3, 4, 3, 4], objects, DISTANCE) == 0
    assert count_matches(objects + [3, 3.99, 3, 3.99], objects, DISTANCE) == 1
    assert count_matches(objects + [6, 0, 6, 0], objects, IOU) == 0
    assert count_matches(objects + [5.99, 0, 5.99, 0], objects, IOU) == 1
    frames = [{"video": "a", "objects": [(0, 0, 6, 6)], "detections": [((0, 0, 6, 6), 0.3)]}]
    truth, detections, videos = make_data(frames)
    counts = score_moving_objects(truth, detections, videos, IOU).counts
    assert counts.tolist() == [[[0, 0, 1]]]


def test_each_object_is_found_once() -> None:
    objects = np.array([[0.0, 0, 6, 6]])
    for protocol in (IOU, DISTANCE):
        assert count_matches(np.repeat(objects, 4, axis=0), objects, protocol) == 1
        assert count_matches(objects, np.repeat(objects, 4, axis=0), protocol) == 1


def test_a_greedy_choice_would_find_less() -> None:
    """Two objects in reach of the first detection, one of them alone in reach of the second."""
    objects = np.array([[0.0, 0, 4, 4], [4.0, 0, 8, 4]])
    found = np.array([[1.0, 0, 5, 4], [-3.9, 0, 0.1, 4]])
    assert count_matches(found, objects, DISTANCE) == 2


def test_the_mean_is_over_videos_and_not_over_objects() -> None:
    """One video with 1 of 1 found, one with 0 of 3: the mean F1 is 50, the pooled one 2/5."""
    box, others = (0, 0, 6, 6), [(20 * k, 0, 20 * k + 6, 6) for k in range(1, 4)]
    frames = [
        {"video": "a", "objects": [box], "detections": [(box, 0.9)]},
        {"video": "b", "objects": others, "detections": []},
    ]
    scores = score_moving_objects(*make_data(frames), IOU)
    assert scores.means()[0] == pytest.approx([0.5, 0.5, 0.5])
    assert scores.pooled()[0] == pytest.approx([1.0, 0.25, 0.4])


def test_videos_without_objects() -> None:
    """They have no rates and stay out of the mean; the pooled rates have their false positives."""
    box = (0, 0, 6, 6)
    frames = [
        {"video": "a", "objects": [box], "detections": [(box, 0.9)]},
        {"video": "empty", "objects": [], "detections": [(box, 0.9), (box, 0.8)]},
    ]
    scores = score_moving_objects(*make_data(frames), IOU)
    assert np.isnan(scores.rates()[0, 1]).all()
    assert scores.means()[0] == pytest.approx([1, 1, 1])
    assert scores.pooled()[0] == pytest.approx([1 / 3, 1, 0.5])
    nothing = score_moving_objects(*make_data(frames[1:]), IOU)
    assert np.isnan(nothing.means()).all() and nothing.best() == 0


def test_the_order_of_detections_and_frames_does_not_matter() -> None:
    frames = random_frames(9, num_frames=30)
    shuffled = [
        {**frames[k], "detections": frames[k]["detections"][::-1]}
        for k in np.random.default_rng(0).permutation(30)
    ]
    for protocol in MOVING_OBJECT_PROTOCOLS.values():
        one = score_moving_objects(*make_data(frames), protocol)
        other = score_moving_objects(*make_data(shuffled), protocol)
        np.testing.assert_allclose(one.means(), other.means())


def test_500_objects_in_a_frame() -> None:
    places = [(7.0 * (k % 25), 7.0 * (k // 25)) for k in range(500)]
    objects = [(x, y, x + 5, y + 5) for x, y in places]
    found = [((x + 1, y, x + 6, y + 5), 0.9) for x, y in places[:400]]
    data = make_data([{"video": "a", "objects": objects, "detections": found}])
    for name in ("micml", "distance5", "dsfnet_iou20"):
        scores = score_moving_objects(*data, MOVING_OBJECT_PROTOCOLS[name])
        assert scores.counts.tolist() == [[[400, 0, 100]]]
    assert score_points(*data[:2]).min() == pytest.approx(0.8)


def test_ignored_objects_and_classes() -> None:
    box = (0, 0, 6, 6)
    truth, detections, videos = make_data(
        [{"video": "a", "objects": [box, (20, 0, 26, 6)], "detections": [(box, 0.9)]}]
    )
    flagged = BoxTruth(**{**vars(truth), "ignore": np.array([False, True])})
    assert score_moving_objects(flagged, detections, videos, IOU).counts.tolist() == [[[1, 0, 0]]]
    two = BoxTruth(**{**vars(truth), "class_names": ("car", "ship")})
    other = detections._replace(class_index=np.array([1]))
    assert score_moving_objects(two, other, videos, IOU).counts.tolist() == [[[0, 1, 2]]]
    with pytest.raises(ValueError, match="2 names of videos for 1 frames"):
        score_moving_objects(truth, detections, ["a", "b"], IOU)


def test_visos_mean_ap_by_hand() -> None:
    """Found, false, found of three objects: precision 1 up to 1/3, then 2/3 up to 2/3."""
    boxes = [(20.0 * k, 0, 20 * k + 6, 6) for k in range(4)]
    found = [(boxes[0], 0.9), (boxes[3], 0.8), (boxes[1], 0.1)]
    data = make_data([{"video": "a", "objects": boxes[:3], "detections": found}])
    scores = score_moving_objects(*data, MOVING_OBJECT_PROTOCOLS["viso"])
    assert scores.average_precision == pytest.approx([1 / 3 + 2 / 3 / 3])
    assert score_moving_objects(*data, IOU).average_precision is None


def test_mean_ap_leaves_the_threshold_and_ignored_objects_out() -> None:
    """An IoU of 1/2 is not above 1/2; to find a flagged object is neither right nor wrong."""
    box, half, other = (0, 0, 6, 6), (0, 0, 6, 3), (20, 0, 26, 6)
    truth, detections, videos = make_data(
        [{"video": "a", "objects": [box, other], "detections": [(other, 0.9), (half, 0.8)]}]
    )
    flagged = BoxTruth(**{**vars(truth), "ignore": np.array([False, True])})
    for threshold, expected in ((0.5, 0), (0.49, 1)):
        protocol = MovingObjectProtocol("test", "iou", threshold, mean_ap=True)
        scores = score_moving_objects(flagged, detections, videos, protocol)
        assert scores.average_precision.tolist() == [expected]


def test_points_of_flagged_objects_and_the_best_detections_alone() -> None:
    places = [(20.0 * k, 0, 20 * k + 6, 6) for k in range(3)]
    found = [(places[2], 0.9), (places[0], 0.8), (places[1], 0.7)]
    truth, detections, _ = make_data([{"video": "a", "objects": places, "detections": found}])
    assert score_points(truth, detections, [5])[0, 0] == 1
    assert score_points(truth, detections, [5], max_detections=2)[0, 0] == pytest.approx(2 / 3)
    flagged = BoxTruth(**{**vars(truth), "ignore": np.array([False, False, True])})
    assert score_points(flagged, detections, [5])[0, 0] == pytest.approx(
        2 / 3
    )  # the first is false


@pytest.mark.parametrize("seed", range(5))
def test_points_against_loops(seed: int) -> None:
    frames = random_frames(seed, num_frames=12, most=9, side=60)
    truth, detections, _ = make_data(frames)
    limits = (1, 2, 3.5, 5, 10, 15, 25)
    values = score_points(truth, detections, limits)[:, 0]
    assert values == pytest.approx([oracle.point_precision(frames, limit) for limit in limits])
    assert (np.diff(values) >= -0.05).all() and values[-1] > values[0]


def test_points_by_hand() -> None:
    """3-4-5: a distance of exactly d counts; the nearest free object is taken, once."""
    frames = [
        {
            "video": "a",
            "objects": [(0, 0, 2, 2), (3, 4, 5, 6)],
            "detections": [((0, 0, 2, 2), 0.9), ((0, 0, 2, 2), 0.8)],
        }
    ]
    truth, detections, _ = make_data(frames)
    assert score_points(truth, detections, [4.99, 5])[:, 0].tolist() == [0.5, 1.0]
    assert np.isnan(
        score_points(*make_data([{"video": "a", "objects": [], "detections": []}])[:2])
    ).all()
    assert (score_points(truth, detections.select(np.zeros(0, int))) == 0).all()
    with pytest.raises(ValueError, match="positive"):
        score_points(truth, detections, [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "box"}, "rule must be one of iou, distance, got 'box'"),
        ({"threshold": 1.0}, "threshold must lie in"),
        ({"rule": "distance", "threshold": 0.0}, "be positive for a distance, got 0.0"),
        ({"score_thresholds": ()}, "score_thresholds"),
        ({"score_thresholds": (1.5,)}, "score_thresholds"),
        ({"rule": "distance", "threshold": 5.0, "mean_ap": True}, "for the rule 'iou' only"),
    ],
)
def test_impossible_protocols_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingObjectProtocol(**{"name": "test", "rule": "iou", "threshold": 0.0, **change})


def test_the_presets_are_those_of_the_released_programs() -> None:
    assert MOVING_OBJECT_PROTOCOLS["distance5_best"].score_thresholds[5] == 0.3
    presets = {
        name: (p.rule, p.threshold, p.score_thresholds)
        for name, p in MOVING_OBJECT_PROTOCOLS.items()
        if name != "distance5_best"
    }
    assert presets == {
        "micml": ("iou", 0.0, (0.3,)),
        "dsfnet_iou05": ("iou", 0.05, (0.3,)),
        "dsfnet_iou10": ("iou", 0.1, (0.3,)),
        "dsfnet_iou20": ("iou", 0.2, (0.3,)),
        "distance5": ("distance", 5.0, (0.3,)),
        "hieum": ("distance", 5.0, (0.2, 0.25, 0.3)),
        "viso": ("iou", 0.0, (0.3,)),
    }
