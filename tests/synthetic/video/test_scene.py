"""Synthetic videos: what moves is labelled and what stands is not; sizes, speeds, density."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from scipy.stats import ks_2samp

from rsd2.synthetic import VideoConfig, VideoRenderer, make_record, measure_videos, plan_video
from rsd2.synthetic.video.config import SPEED_MODES, Quantiles
from rsd2.synthetic.video.roads import Road, lay_roads
from rsd2.synthetic.video.statistics import TOLERANCE, format_statistics
from rsd2.synthetic.video.traffic import Lane, simulate, spread_over_lane
from rsd2.synthetic.video.vehicles import Vehicles, draw_looks, draw_vehicles

STILL = VideoConfig(
    size=(96, 128), num_frames=12, density=6.0, noise=(0, 0), jitter=(0, 0), flicker=0.0,
    max_drift=0.0, parallax=0.0, label_noise=0.0, dim_fraction=0.0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """OpenCV's threads wait for each other on a busy machine; the drawings are small."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def straight_road(num_lanes: int = 2, length: int = 200) -> Road:
    x = np.arange(length + 1, dtype=float)
    return Road(np.stack([x, np.full(len(x), 50.0)], axis=1), num_lanes, 6.0)


def car(contrast: float = 40.0, number: int = 1) -> Vehicles:
    ones = np.ones(number)
    return Vehicles(6 * ones, 3 * ones, contrast * ones, np.zeros((number, 3)), 0.3 * ones)


def draw_one(center: tuple[float, float], heading: float = 0.4, **options) -> np.ndarray:
    ground = np.full((40, 40, 3), 100, dtype=np.float32)
    image = ground.copy()
    draw_vehicles(
        image, ground, car(**options), np.array([center]), np.array([heading]), np.ones(1),
        sun=(0.8, 0.5), blur=0.8,
    )  # fmt: skip
    return image - ground


def test_equal_arguments_give_equal_videos_and_frames_in_any_order() -> None:
    config = VideoConfig(size=96, num_frames=8, density=4)
    first, second = (VideoRenderer(plan_video(config, 5, 3)) for _ in range(2))
    assert make_record(first.plan) == make_record(second.plan)
    late = second.frame(7)
    assert np.array_equal(first.frame(2), second.frame(2))
    assert np.array_equal(first.frame(7), late)
    assert late.shape == (96, 96, 3) and late.dtype == np.uint8
    assert make_record(plan_video(config, 6, 3)) != make_record(first.plan)


@pytest.mark.parametrize("index", range(4))
def test_only_vehicles_that_move_change_the_picture(index: int) -> None:
    """Without noise and camera motion, standing vehicles and ground are the same in all frames."""
    plan = plan_video(STILL, 1, index)
    renderer = VideoRenderer(plan)
    first, last = 0, STILL.num_frames - 1
    changed = np.abs(renderer.frame(first).astype(int) - renderer.frame(last)).max(axis=2)
    near = np.zeros(changed.shape, dtype=np.uint8)
    for frame in (first, last):
        centers, _, shown = plan.positions(frame)
        lengths = plan.looks.length[plan.traffic.track[frame] % len(plan.looks.length)]
        for (x, y), length in zip(centers[shown > 0], lengths[shown > 0]):
            cv2.circle(near, (int(x), int(y)), math.ceil(length / 2 + 6), 1, -1)
    assert changed[near == 0].max(initial=0) <= 1  # rounding
    for label in plan.labels[first]:
        x, y, width, height = label.box
        before, after = (
            {k.track: k for k in plan.labels[f]}.get(label.track) for f in (first, last)
        )
        if after is None or math.dist(before.box[:2], after.box[:2]) > 8:
            assert changed[y : y + height, x : x + width].max() > 5, label


def test_standing_vehicles_are_drawn_and_not_labelled() -> None:
    config = dataclasses.replace(STILL, standing_lanes=0.9, density=8.0, parked=0.0)
    totals = [0, 0]
    for index in range(6):
        renderer = VideoRenderer(plan_video(config, 2, index))
        inside = renderer.standing.centers - renderer.plan.margin
        height, width = config.size
        totals[0] += ((inside >= 0) & (inside < (width, height))).all(axis=1).sum()
        totals[1] += np.mean([len(labels) for labels in renderer.plan.labels])
    assert totals[0] > 3 * totals[1] > 0


def test_labels_are_whole_pixels_inside_the_frame_and_tracks_are_unique() -> None:
    config = VideoConfig(size=(64, 160), num_frames=20, density=8)
    for index in range(5):
        for labels in plan_video(config, 0, index).labels:
            tracks = [label.track for label in labels]
            assert tracks == sorted(set(tracks)) and all(track >= 1 for track in tracks)
            for label in labels:
                assert all(isinstance(value, int) for value in label.box)
                x, y, width, height = label.box
                assert x >= 0 and y >= 0 and width >= 2 and height >= 2
                assert x + width <= 160 and y + height <= 64


def test_label_encloses_the_vehicle_s_light() -> None:
    """A vehicle of 6 x 3 px along x: its box holds nearly all that it adds to the picture."""
    added = draw_one((20.3, 19.6), heading=0.0)[:, :, 0]
    width, height = car().extents(np.zeros(1))[0]
    assert (width, height) == (7.0, 4.0)
    left, top = round(20.3 - width / 2), round(19.6 - height / 2)
    bright = np.maximum(added, 0)
    box = bright[top : top + round(height), left : left + round(width)]
    assert box.sum() > 0.85 * bright.sum()


def test_drawing_follows_sub_pixel_positions() -> None:
    base = draw_one((18.0, 20.0))
    assert np.allclose(np.roll(base, (2, 3), axis=(0, 1)), draw_one((21.0, 22.0)), atol=1e-3)
    y, x = np.mgrid[:40, :40]

    def middle(image: np.ndarray) -> np.ndarray:
        weight = image[:, :, 1].astype(float)
        return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()

    shift = middle(draw_one((18.5, 20.25))) - middle(base)
    assert np.allclose(shift, (0.5, 0.25), atol=0.01)


def test_vehicles_beyond_the_border_change_only_what_is_seen() -> None:
    assert np.abs(draw_one((-20.0, 20.0))).max() == 0
    cut, whole = draw_one((0.0, 20.0)), draw_one((15.0, 20.0))
    assert np.allclose(cut[:, :20], whole[:, 15:35], atol=1e-3)


def test_dark_vehicles_are_darker_and_contrast_is_that_asked_for() -> None:
    wide = dataclasses.replace(car(-30.0), length=np.full(1, 16.0), width=np.full(1, 12.0))
    ground = np.full((60, 60, 3), 120, dtype=np.float32)
    image = ground.copy()
    draw_vehicles(
        image, ground, wide, np.array([[30.0, 30.0]]), np.zeros(1), np.ones(1), (0, 0), 0.8
    )
    assert np.allclose(image[30, 25], 90, atol=0.5)  # behind the windscreen


def test_looks_have_the_shares_that_were_asked_for() -> None:
    looks = draw_looks(np.random.default_rng(0), 20_000, 5.5, 0.2, 0.1)
    assert np.mean(looks.contrast < -10) == pytest.approx(0.2, abs=0.01)
    assert np.mean(np.abs(looks.contrast) <= 10) == pytest.approx(0.1, abs=0.01)
    assert looks.contrast.max() <= 80 and looks.length.min() >= 2
    assert len(draw_looks(np.random.default_rng(0), 0, 5.5, 0.2, 0.1).length) == 0


def test_lanes_of_a_road_drive_on_the_right_in_both_directions() -> None:
    road = straight_road(num_lanes=4)
    centers, heading = road.place(np.full(4, 50.0), np.arange(4))
    # image y points down: right of a car that drives to the right is larger y
    assert np.allclose(centers, [(50, 53), (50, 59), (150, 41), (150, 47)])
    assert np.allclose(np.cos(heading), [1, 1, -1, -1])


def test_bridge_hides_the_lower_road() -> None:
    road = straight_road()
    road.hidden.append((80.0, 120.0))
    along, lane = np.array([70.0, 77.0, 80.0, 100.0, 120.0, 130.0]), np.zeros(6, dtype=int)
    shown = road.shown(along, lane, np.full(6, 6.0))
    assert np.allclose(shown, [1, 1, 0.5, 0, 0.5, 1])
    assert road.shown(np.array([200 - 130.0]), np.ones(1, dtype=int), np.full(1, 6.0)) == 1


def test_roads_cross_on_bridges_and_never_run_into_each_other() -> None:
    crossings = 0
    for seed in range(12):
        roads = lay_roads(np.random.default_rng(seed), (256, 256), 6.0, 5000.0, urban=seed % 2 == 0)
        assert roads and all(road.num_lanes % 2 == 0 for road in roads)
        for low, lower in enumerate(roads):
            crossings += len(lower.hidden)
            for upper in roads[low + 1 :]:
                gaps = np.hypot(*(lower.path[:, None] - upper.path[None]).transpose(2, 0, 1))
                along = np.flatnonzero(gaps.min(axis=1) < 0.8)
                for arc in along:
                    assert any(a - 2 <= arc <= b + 2 for a, b in lower.hidden)
    assert crossings > 5


def test_vehicles_keep_their_distance_and_never_go_back() -> None:
    roads = [straight_road(4, 300)]
    lanes = [Lane(0, number, 2.0) for number in range(4)]
    lengths = np.random.default_rng(1).uniform(4, 14, 80)
    traffic = simulate(
        np.random.default_rng(0), roads, lanes, 30, lengths, SPEED_MODES["urban"], 200, stops=True
    )
    assert traffic.track.shape == (200, 30) and traffic.num_tracks > 30
    for frame in range(200):
        size = lengths[traffic.track[frame] % 80]
        for lane in range(4):
            mine = np.flatnonzero(traffic.lane[frame] == lane)
            order = mine[np.argsort(traffic.along[frame, mine])]
            gaps = np.diff(traffic.along[frame, order]) - (size[order][1:] + size[order][:-1]) / 2
            assert (gaps > -1e-6).all()
    same = traffic.track[1:] == traffic.track[:-1]
    steps = (traffic.along[1:] - traffic.along[:-1])[same]
    assert steps.min() >= 0 and steps.max() < 5
    assert (steps == 0).any()  # some stop
    assert len(np.unique(traffic.track)) == traffic.num_tracks


def test_spread_over_lane_keeps_gaps_and_leaves_out_what_does_not_fit() -> None:
    lengths = np.full(50, 7.0)
    places = spread_over_lane(np.random.default_rng(0), lengths, 100.0)
    assert len(places) == 10 and np.allclose(np.diff(places), 10)
    places = spread_over_lane(np.random.default_rng(0), lengths[:3], 100.0)
    assert len(places) == 3 and (np.diff(places) >= 10).all() and 3.5 <= places[0] <= 75
    assert len(spread_over_lane(np.random.default_rng(0), lengths[:0], 100.0)) == 0


def test_quantiles_are_linear_between_their_values() -> None:
    assert Quantiles((0, 0.5, 1), (0, 1, 5)).at(np.array([0, 0.25, 0.75, 1])).tolist() == [
        0,
        0.5,
        3,
        5,
    ]


def test_usual_videos_have_the_statistics_of_real_ones() -> None:
    """Every starred row within 20 %, of 120 planned videos."""
    config = VideoConfig(num_frames=40)
    plans = [plan_video(config, 0, index) for index in range(120)]
    records = [make_record(plan) for plan in plans]
    for plan, record in list(zip(plans, records))[:6]:
        pixels = VideoRenderer(plan).frame(0).astype(float)
        record["image"] = [pixels.mean(), pixels.std()]
    rows = measure_videos(records)
    starred = [row for row in rows if row.starred]
    assert len(starred) == 28
    bad = [row for row in starred if not row.deviation <= TOLERANCE]
    assert not bad, format_statistics(bad)


def test_statistics_of_two_videos_worked_out_by_hand() -> None:
    """A car of 4 x 9 px, 2 px a frame to the right for 21 frames; and an empty video."""
    frames = [[[1, 10 + 2 * t, 20, 4, 9]] for t in range(21)]
    shared = {"size": [512, 256], "base_size": 6.0, "contrast": [-20.0], "speed": [2.0]}
    moving = {"mode": "fast", "drift": [0.03, 0.04], "frames": frames, "image": [120.0, 3.0]}
    empty = {"mode": "urban", "drift": [0, 0], "frames": [[]] * 21, "image": [124.0, 5.0]}
    rows = {row.name: row for row in measure_videos([shared | moving, shared | empty])}
    measured = {name: row.measured for name, row in rows.items()}
    assert measured["mean of the pixels, grey levels"] == 122
    assert measured["deviation of the pixels, grey levels"] == pytest.approx(math.sqrt(4 + 17))
    assert measured["vehicles in 512 x 512 px, mean"] == 1.0  # (2 + 0) / 2
    assert measured["size, 50% of boxes, px"] == 6.0
    assert measured["speed in fast scenes, px/frame"] == pytest.approx(2.0)
    assert math.isnan(measured["speed in urban scenes, px/frame"])
    assert measured["net by path in fast scenes"] == pytest.approx(1.0)
    assert measured["labels of a track, mean"] == 21
    assert measured["net displacement, median, vehicle lengths"] == pytest.approx(40 / 6)
    assert measured["drift of the ground, greatest, px/frame"] == pytest.approx(0.05)
    assert measured["share of fast scenes"] == 0.5 and measured["share of dark vehicles"] == 1
    assert rows["speed in fast scenes, px/frame"].deviation == pytest.approx(0.6 / 2.6)
    text = format_statistics(rows.values())
    assert "23%!" in next(line for line in text.splitlines() if line.startswith("speed in fast"))
    with pytest.raises(ValueError, match="no video"):
        measure_videos([])


def test_extreme_settings_are_drawn() -> None:
    none = VideoConfig(size=64, num_frames=1, density=0.0, parked=0.0)
    plan = plan_video(none, 0, 0)
    assert plan.labels == [[]] and VideoRenderer(plan).frame(0).shape == (64, 64, 3)
    crowded = plan_video(VideoConfig(size=256, num_frames=2, density=50.0), 0, 1)
    assert len(crowded.labels[0]) > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 20}, "size must be"),
        ({"num_frames": 0}, "num_frames must lie"),
        ({"num_frames": 2.5}, "num_frames must be a whole number"),
        ({"noise": (4, 2)}, "noise must be two numbers"),
        ({"noise": 3.0}, "noise must be two numbers"),
        ({"standing_lanes": 1.0}, "standing_lanes must lie"),
        ({"dark_fraction": 0.6, "dim_fraction": 0.6}, "must not exceed 1"),
        ({"jpeg_quality": 10}, "jpeg_quality must lie"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoConfig(**options)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed and index"):
        plan_video(STILL, -1, 0)


def test_standing_and_moving_vehicles_look_alike() -> None:
    """Two-sample tests of what a single frame shows: contrast, and size relative to the scene's."""
    config = dataclasses.replace(STILL, standing_lanes=0.5, dim_fraction=0.12)
    looks: dict[str, list[np.ndarray]] = {"standing": [], "moving": []}
    for index in range(40):
        plan = plan_video(config, 7, index)
        pairs = (("standing", VideoRenderer(plan).standing.looks), ("moving", plan.looks))
        for name, group in pairs:
            size = np.sqrt(group.length * group.width) / plan.base_size
            looks[name].append(np.stack([group.contrast, size, group.length / group.width]))
    standing, moving = (np.concatenate(groups, axis=1) for groups in looks.values())
    assert standing.shape[1] > 400 and moving.shape[1] > 400
    for first, second in zip(standing, moving):
        assert ks_2samp(first, second).pvalue > 0.01
