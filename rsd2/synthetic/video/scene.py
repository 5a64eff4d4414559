"""Satellite videos drawn from a seed: the plan of a video, and its frames.

A plan holds roads, traffic and camera path, which is all that labels and statistics need; frames
are drawn one at a time. Shapes: T frames, N vehicles, H and W height and width of a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from scipy.special import ndtr, ndtri

from .config import DENSITY, SIZE, SPEED_MODES, STILL_SHARE, SpeedMode, VideoConfig
from .ground import Backdrop, draw_backdrop
from .roads import Road, lay_roads
from .traffic import Lane, Traffic, simulate, spread_over_lane
from .vehicles import Vehicles, draw_looks, draw_vehicles

_LEAST_SHOWN = 0.5
_LEAST_INSIDE = 0.5
_NEAR_SIZE, _NEAREST_SIZE = 7.75, 8.9  # "slow" scenes show vehicles of these sizes
_PARALLAX_REACH = 6.0
_JITTER_PULL = 0.1
_AREA = 512 * 512
_LIKENESS = -0.8
_ROOT = 1.2207440846057596
_LEAST_LANES = 8.0  # lanes of the length of the canvas's side


class VideoLabel(NamedTuple):
    """A moving vehicle in one frame.

    Args:
        track: number of the vehicle in its video, from 1.
        box: x, y, width, height: whole pixels, inside the frame.
    """

    track: int
    box: tuple[int, int, int, int]


class Standing(NamedTuple):
    """Vehicles that stand: their looks, (N, 2) places in the canvas, (N,) headings and opacity."""

    looks: Vehicles
    centers: np.ndarray
    heading: np.ndarray
    shown: np.ndarray


@dataclass
class VideoPlan:
    """Everything about a video but its pixels.

    Attributes:
        config: settings of the videos.
        seed: seed of the set of videos.
        index: index of the video.
        mode: key of ``SPEED_MODES``.
        base_size: median size of the vehicles, pixels.
        margin: pixels of the canvas around the first frame.
        roads: roads from the lowest to the highest.
        lanes: lanes that vehicles drive on.
        standing_lanes: lanes whose vehicles stand.
        looks: looks of the moving vehicles, by track number, taken in turn.
        traffic: positions of the moving vehicles in all frames.
        camera: (T, 2) xy shift of the ground in the frames, pixels.
        drift: (2,) steady part of that shift, pixels per frame.
        labels: labels of each frame, by track number.
        speed: (number of tracks,) mean step of each vehicle, pixels per frame.
    """

    config: VideoConfig
    seed: int
    index: int
    mode: str
    base_size: float
    margin: int
    roads: list[Road]
    lanes: list[Lane]
    standing_lanes: list[Lane]
    looks: Vehicles
    traffic: Traffic
    camera: np.ndarray
    drift: np.ndarray
    labels: list[list[VideoLabel]]
    speed: np.ndarray

    def positions(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute where the moving vehicles are.

        Args:
            frame: index of the frame, 0 to T - 1.

        Returns:
            (N, 2) xy in pixels of the frame, (N,) heading in radians, (N,) opacity 0 to 1.
        """
        centers, heading, shown = _place(
            self.roads,
            self.lanes,
            self.traffic.lane[frame],
            self.traffic.along[frame],
            self.looks.length[self.traffic.track[frame] % len(self.looks.length)],
        )
        return centers + self.camera[frame] - self.margin, heading, shown

    @property
    def contrast(self) -> np.ndarray:
        """(number of tracks,) contrast of each vehicle, grey levels."""
        track = np.arange(self.traffic.num_tracks)
        return self.looks.contrast[track % len(self.looks.contrast)]

    @cached_property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the canvas, pixels."""
        height, width = self.config.shape
        return height + 2 * self.margin, width + 2 * self.margin


def plan_video(config: VideoConfig, seed: int, index: int) -> VideoPlan:
    """Plan a video: roads, traffic, camera path and labels.

    Args:
        config: settings of the videos.
        seed: seed of the set of videos, >= 0.
        index: index of the video in the set, >= 0.

    Returns:
        The plan; equal arguments give equal plans in every process.

    Raises:
        ValueError: if ``seed`` or ``index`` is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be >= 0, got {seed} and {index}")

    # Own generators for plan (0), backdrop (1), noise (2), labels (3) and the set's ranks (4):
    # drawing in one never shifts the others.
    rng = np.random.default_rng([seed, index, 0])
    ranks = _draw_ranks(seed, index)
    base_size = float(SIZE.at(ranks[0]))
    mode = _draw_mode(ranks[2], base_size)
    speeds = SPEED_MODES[mode]

    camera, drift = _move_camera(rng, config)
    # The ground may shift by this much in either direction and must still fill the frame.
    margin = math.ceil(float(np.abs(camera).max())) + 4
    height, width = config.shape
    canvas = (height + 2 * margin, width + 2 * margin)

    area = height * width / _AREA
    target = config.density * float(DENSITY.at(_density_rank(ranks[1], ranks[0]))) * area
    lane_width = max(5.0, base_size)

    # Lanes are mostly empty: twelve sizes from vehicle to vehicle.
    wanted = 12.0 * base_size * target / (1 - config.standing_lanes)
    wanted = max(wanted, _LEAST_LANES * math.sqrt(canvas[0] * canvas[1]))
    roads = lay_roads(rng, canvas, lane_width, wanted, urban=mode == "urban")
    driving, standing = _share_lanes(rng, roads, speeds, config.standing_lanes)

    # The target counts vehicles in sight; those outside and under bridges come on top.
    in_sight = _length_in_sight(roads, driving, canvas)
    everywhere = sum(roads[lane.road].length for lane in driving)
    # Rounded at random, so that the mean over the videos is the target.
    number = math.floor(target * everywhere / max(in_sight, 1.0) + rng.uniform())

    fractions = (config.dark_fraction, config.dim_fraction)
    # More looks than vehicles, because new vehicles replace those that leave.
    looks = draw_looks(rng, 4 * number + 16, base_size, *fractions)
    traffic = simulate(
        rng, roads, driving, number, looks.length, speeds, config.num_frames, mode == "urban"
    )

    plan = VideoPlan(
        config, seed, index, mode, base_size, margin, roads, driving, standing, looks, traffic,
        camera, drift, [], np.zeros(0),
    )  # fmt: skip
    _label(plan)
    return plan


class VideoRenderer:
    """Draws the frames of a plan, in any order."""

    def __init__(self, plan: VideoPlan) -> None:
        """Draw everything that does not move.

        Args:
            plan: plan of the video.
        """
        self.plan = plan
        rng = np.random.default_rng([plan.seed, plan.index, 1])
        # Blur, noise and light are those of one sensor and one hour: the same in all frames.
        self._blur = float(rng.uniform(0.7, 1.0))
        self._noise = float(rng.uniform(*plan.config.noise))

        self._parallax = rng.normal(size=2)
        self._parallax *= rng.uniform(0, plan.config.parallax) / np.linalg.norm(self._parallax)

        azimuth = rng.uniform(0, 2 * math.pi)
        self._sun = (1.2 * math.cos(azimuth), 1.2 * math.sin(azimuth))

        length = plan.base_size * 1.05
        self.backdrop: Backdrop = draw_backdrop(
            rng, plan.canvas, plan.roads, length, self._blur, self._sun
        )
        self.standing = _place_standing(rng, plan, self.backdrop.lots)

    def frame(self, index: int) -> np.ndarray:
        """Draw a frame.

        Args:
            index: index of the frame, 0 to T - 1.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        plan = self.plan
        # A generator for each frame, so that frames can be drawn in any order.
        rng = np.random.default_rng([plan.seed, plan.index, 2, index])
        shift = plan.camera[index] - plan.margin

        image = self._shifted(self.backdrop.ground, shift)
        (left, top), (height, width) = -np.rint(shift).astype(int), plan.config.shape
        ground = self.backdrop.smooth[top : top + height, left : left + width]

        centers, heading, shown = plan.positions(index)
        looks = plan.looks.take(plan.traffic.track[index] % len(plan.looks.length))
        standing = self.standing
        # Moving vehicles over standing ones, buildings over both.
        self._draw(image, ground, standing.looks, standing.centers + shift, standing[2:])
        self._draw(image, ground, looks, centers, (heading, shown))

        # Tall buildings lean a little more from frame to frame, up to a bound.
        lean = self._parallax * index
        lean *= min(1.0, _PARALLAX_REACH / max(float(np.linalg.norm(lean)), 1e-6))
        tall = self._shifted(self.backdrop.tall, shift + lean)
        image = image * (1 - tall[:, :, 3:]) + tall[:, :, :3]

        gain = 1 + plan.config.flicker * np.clip(rng.normal(), -2, 2)
        # Noise comes last: the sensor adds it to everything that it sees.
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image * np.float32(gain) + noise * np.float32(self._noise)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def _draw(
        self,
        image: np.ndarray,
        ground: np.ndarray,
        looks: Vehicles,
        centers: np.ndarray,
        pose: tuple[np.ndarray, np.ndarray],
    ) -> None:
        heading, shown = pose
        draw_vehicles(image, ground, looks, centers, heading, shown, self._sun, self._blur)

    def _shifted(self, layer: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Cut out the part of a layer that the frame shows, at a sub-pixel shift."""
        height, width = self.plan.config.shape
        matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
        return cv2.warpAffine(
            layer, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )


def _draw_ranks(seed: int, index: int) -> np.ndarray:
    """Draw (3,) numbers from 0 to 1 that cover the range more evenly than chance over a few videos.

    They are points of the additive sequence of the root of x^4 = x + 1, from a random start.
    """
    start = np.random.default_rng([seed, 4]).uniform(size=3)
    ranks = (start + index * _ROOT ** -np.arange(1.0, 4.0)) % 1
    # Strictly inside, because the normal quantiles of 0 and 1 are infinite.
    return np.clip(ranks, 1e-6, 1 - 1e-6)


def _density_rank(rank: float, size_rank: float) -> float:
    """Rank of a scene's density, uniform over scenes; large vehicles are few."""
    # Correlated normals: their ranks are uniform, and follow the sizes' ranks negatively.
    normal = _LIKENESS * ndtri(size_rank) + math.sqrt(1 - _LIKENESS**2) * ndtri(rank)
    return float(ndtr(normal))


def _draw_mode(rank: float, base_size: float) -> str:
    """Choose the speeds of a scene: slow ones show large vehicles, the others any."""
    # Slow scenes lie among those sizes alone, so they are more frequent there.
    low, high = np.interp([_NEAR_SIZE, _NEAREST_SIZE], SIZE.values, SIZE.shares)
    slow = 0.0
    if _NEAR_SIZE <= base_size <= _NEAREST_SIZE:
        slow = SPEED_MODES["slow"].share / (high - low)

    if rank < slow:
        return "slow"

    others = {name: mode.share for name, mode in SPEED_MODES.items() if name != "slow"}
    ends = np.cumsum(list(others.values())) / sum(others.values())
    return list(others)[int(np.searchsorted(ends, (rank - slow) / (1 - slow)))]


def _move_camera(rng: np.random.Generator, config: VideoConfig) -> tuple[np.ndarray, np.ndarray]:
    """Draw the shift of the ground (T, 2) and its steady part (2,)."""
    angle = rng.uniform(0, 2 * math.pi)
    speed = 0.0 if rng.uniform() < STILL_SHARE else rng.uniform(0, config.max_drift)
    drift = speed * np.array([math.cos(angle), math.sin(angle)])

    step = rng.uniform(*config.jitter)
    camera = np.zeros((config.num_frames, 2))
    wander = np.zeros(2)
    for frame in range(config.num_frames):
        camera[frame] = frame * drift + wander
        # A pull towards the path keeps the random walk within a pixel or so.
        wander = (1 - _JITTER_PULL) * wander + rng.normal(0, step, 2)
    return camera, drift


def _share_lanes(
    rng: np.random.Generator, roads: list[Road], speeds: SpeedMode, standing: float
) -> tuple[list[Lane], list[Lane]]:
    """Choose (lanes of moving vehicles, lanes of standing ones); the first is never empty."""
    driving: list[Lane] = []
    still: list[Lane] = []
    for road, item in enumerate(roads):
        for number in range(item.num_lanes):
            # Lanes have most of the spread; `traffic` adds the rest for each driver.
            mean = float(rng.choice(speeds.means)) + rng.normal(0, 0.85 * speeds.deviation)
            speed = max(mean, speeds.slowest)
            stands = rng.uniform() < standing
            (still if stands else driving).append(Lane(road, number, speed))

    if not driving:
        driving.append(still.pop())
    return driving, still


def _length_in_sight(roads: list[Road], lanes: list[Lane], canvas: tuple[int, int]) -> float:
    """Measure the length of lanes inside the canvas and not under a bridge, pixels."""
    total = 0.0
    for lane in lanes:
        along = np.arange(0.5, roads[lane.road].length)
        number = np.full(len(along), lane.number)
        centers, _ = roads[lane.road].place(along, number)

        inside = ((centers >= 0) & (centers < canvas[::-1])).all(axis=1)
        shown = roads[lane.road].shown(along, number, np.full(len(along), 6.0)) >= _LEAST_SHOWN
        total += float((inside & shown).sum())
    return total


def _place(
    roads: list[Road], lanes: list[Lane], lane: np.ndarray, along: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute places in the canvas (N, 2), heading (N,) and opacity (N,)."""
    centers, heading, shown = np.zeros((len(lane), 2)), np.zeros(len(lane)), np.ones(len(lane))
    road_of = np.array([item.road for item in lanes], dtype=int)[lane]
    number = np.array([item.number for item in lanes], dtype=int)[lane]

    for index in np.unique(road_of):
        mine = road_of == index
        centers[mine], heading[mine] = roads[index].place(along[mine], number[mine])
        shown[mine] = roads[index].shown(along[mine], number[mine], length[mine])
    return centers, heading, shown


def _place_standing(rng: np.random.Generator, plan: VideoPlan, lots: np.ndarray) -> Standing:
    """Place vehicles of standing lanes (as dense as moving ones), parked ones, bright roofs."""
    config = plan.config
    moving = sum(plan.roads[lane.road].length for lane in plan.lanes)
    # Density of moving vehicles: a standing lane must not be told apart by its density.
    density = plan.traffic.lane.shape[1] / max(moving, 1.0)
    parked = lots[rng.uniform(size=len(lots)) < min(0.45 * config.parked, 1.0)]
    spots = rng.poisson(12 * config.parked * plan.canvas[0] * plan.canvas[1] / _AREA)

    numbers = [rng.poisson(density * plan.roads[x.road].length) for x in plan.standing_lanes]
    total = sum(numbers) + len(parked) + spots
    looks = draw_looks(rng, total, plan.base_size, config.dark_fraction, config.dim_fraction)

    lane_of, along, first = [np.zeros(0, int)], [np.zeros(0)], 0
    for index, (lane, number) in enumerate(zip(plan.standing_lanes, numbers)):
        lengths = looks.length[first : first + number]
        places = spread_over_lane(rng, lengths, plan.roads[lane.road].length)
        lane_of.append(np.full(len(places), index))
        along.append(places)
        first += len(places)

    lane_index, places = np.concatenate(lane_of), np.concatenate(along)
    centers, heading, shown = _place(
        plan.roads, plan.standing_lanes, lane_index, places, looks.length[: len(lane_index)]
    )

    anywhere = rng.uniform(0, 1, (spots, 2)) * plan.canvas[::-1]
    turned = rng.uniform(0, 2 * math.pi, spots)
    centers = np.concatenate([centers, parked[:, :2], anywhere])
    heading = np.concatenate([heading, parked[:, 2] + rng.normal(0, 0.05, len(parked)), turned])
    shown = np.concatenate([shown, np.ones(len(parked) + spots)])
    # Lanes may hold fewer than were asked for, so looks are left over.
    return Standing(looks.take(np.arange(len(centers))), centers, heading, shown)


def _label(plan: VideoPlan) -> None:
    """Label the moving vehicles as an annotator would, and note how fast each one is."""
    height, width = plan.config.shape
    rng = np.random.default_rng([plan.seed, plan.index, 3])
    speed_sum, seen = np.zeros(plan.traffic.num_tracks), np.zeros(plan.traffic.num_tracks)
    for frame in range(plan.config.num_frames):
        centers, heading, shown = plan.positions(frame)

        track = plan.traffic.track[frame]
        extents = plan.looks.take(track % len(plan.looks.length)).extents(heading)
        corners = np.concatenate([centers - extents / 2, centers + extents / 2], axis=1)
        # Annotated corners are whole pixels, a fraction of a pixel off.
        noisy = np.rint(corners + rng.normal(0, plan.config.label_noise, corners.shape))

        boxes = np.clip(noisy, 0, (width, height) * 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        whole = np.maximum((noisy[:, 2:] - noisy[:, :2]).prod(axis=1), 1)

        kept = (shown >= _LEAST_SHOWN) & (sides.min(axis=1) >= 2)
        kept &= sides.prod(axis=1) >= _LEAST_INSIDE * whole
        # By track, because the slots of the traffic are reused in another order.
        order = np.flatnonzero(kept)[np.argsort(track[kept])]
        frame_labels = []
        for k in order:
            (x, y), (w, h) = boxes[k, :2], sides[k]
            frame_labels.append(VideoLabel(int(track[k]) + 1, (int(x), int(y), int(w), int(h))))
        plan.labels.append(frame_labels)

        # In the next frame a slot may hold a new vehicle, whose place is no step of the old one.
        following = min(frame + 1, plan.config.num_frames - 1)
        step = np.abs(plan.traffic.along[following] - plan.traffic.along[frame])
        same = plan.traffic.track[following] == track
        np.add.at(speed_sum, track[same], step[same])
        np.add.at(seen, track[same], 1)
    plan.speed = speed_sum / np.maximum(seen, 1)
