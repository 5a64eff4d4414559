"""Traffic of a synthetic video: vehicles that follow each other along lanes, and some that stand.

Shapes: N vehicles on the road at a time, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .config import SpeedMode
from .roads import Road

_GAP = 3.0  # least distance between two vehicles of a lane, pixels
_QUICKENING, _BRAKING = 0.08, 0.3  # pixels per frame, each frame
_STOP_CHANCE = 0.0015  # in an urban frame, for each vehicle
_STOP_FRAMES = (10, 40)


class Lane(NamedTuple):
    """A lane of a road.

    Args:
        road: index of the road.
        number: number of the lane in its road.
        speed: mean of the speeds that drivers wish, pixels per frame; 0 where vehicles stand.
    """

    road: int
    number: int
    speed: float


@dataclass
class Traffic:
    """Positions of all vehicles in all frames.

    Attributes:
        track: (T, N) int number of the vehicle, 0-based; a slot gets a new one when its vehicle
            has left the road.
        lane: (T, N) int index of the lane.
        along: (T, N) pixels driven in the lane.
        num_tracks: number of vehicles in all.
    """

    track: np.ndarray
    lane: np.ndarray
    along: np.ndarray
    num_tracks: int


def spread_over_lane(
    rng: np.random.Generator, lengths: np.ndarray, lane_length: float
) -> np.ndarray:
    """Place vehicles at random along a lane so that none touches the next.

    Args:
        rng: source of randomness.
        lengths: (N,) lengths of the vehicles in their order, pixels.
        lane_length: pixels.

    Returns:
        (M,) positions of the middles of the first M <= N vehicles, those that fit, increasing.
    """
    needed = np.cumsum(lengths + _GAP)
    lengths = lengths[needed <= lane_length]

    # Spread the free space at random, then add what the vehicles in front take.
    free = lane_length - (lengths + _GAP).sum()
    starts = np.sort(rng.uniform(0, free, len(lengths)))
    return starts + np.cumsum(lengths + _GAP) - (lengths + _GAP) / 2


def simulate(
    rng: np.random.Generator,
    roads: Sequence[Road],
    lanes: Sequence[Lane],
    number: int,
    lengths: np.ndarray,
    mode: SpeedMode,
    num_frames: int,
    stops: bool,
) -> Traffic:
    """Simulate traffic: each driver wishes a speed of their own and keeps a distance.

    A vehicle that leaves its lane gives its slot to a new one, which enters another lane as soon
    as there is room, so that the density stays.

    Args:
        rng: source of randomness.
        roads: roads of the scene.
        lanes: lanes that vehicles drive on.
        number: wanted N; the lanes may hold fewer.
        lengths: lengths of the vehicles by track number, taken in turn; pixels.
        mode: spread of the speeds.
        num_frames: T.
        stops: some vehicles stop for a while.

    Returns:
        The traffic.
    """
    road_length = np.array([roads[lane.road].length for lane in lanes])
    lane_of, along = _start(rng, road_length, number, lengths)
    number = len(lane_of)

    state = _State(rng, lanes, road_length, lengths, mode, lane_of, along)
    shape = (num_frames, number)
    track, lane = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
    places = np.zeros(shape)

    # Record first, then move: frame 0 shows the start.
    for frame in range(num_frames):
        track[frame], lane[frame], places[frame] = state.track, state.lane, state.along
        state.step(stops)
    return Traffic(track, lane, places, state.num_tracks)


def _start(
    rng: np.random.Generator, road_length: np.ndarray, number: int, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw lane (N,) and place (N,) of the first vehicles."""
    shares = rng.multinomial(number, road_length / road_length.sum())
    lane_of, along, first = [], [], 0
    for index, share in enumerate(shares):
        taken = lengths[np.arange(first, first + share) % len(lengths)]
        places = spread_over_lane(rng, taken, road_length[index])
        lane_of.append(np.full(len(places), index))
        along.append(places)
        first += len(places)

    return np.concatenate(lane_of), np.concatenate(along)


class _State:
    """The vehicles at one moment."""

    def __init__(
        self,
        rng: np.random.Generator,
        lanes: Sequence[Lane],
        road_length: np.ndarray,
        lengths: np.ndarray,
        mode: SpeedMode,
        lane: np.ndarray,
        along: np.ndarray,
    ) -> None:
        self._rng, self._mode, self._lengths = rng, mode, lengths
        self._lane_speed = np.array([item.speed for item in lanes])
        self._road_length = road_length

        self.lane, self.along = lane, along
        self.track = np.arange(len(lane))
        self.num_tracks = len(lane)

        self._wish = self._draw_wish(lane)
        self._speed = self._wish.copy()
        self._pause = np.zeros(len(lane), dtype=int)

    def _draw_wish(self, lane: np.ndarray) -> np.ndarray:
        # Lanes share most of the spread: drivers of a lane cannot differ much, or they would queue.
        wish = self._lane_speed[lane] + self._rng.normal(0, 0.5 * self._mode.deviation, len(lane))
        return np.maximum(wish, self._mode.slowest)

    def _length(self) -> np.ndarray:
        return self._lengths[self.track % len(self._lengths)]

    def step(self, stops: bool) -> None:
        """Move on by one frame."""
        if stops:
            begins = self._rng.uniform(size=len(self.track)) < _STOP_CHANCE
            pause = self._rng.integers(*_STOP_FRAMES, len(self.track))
            self._pause = np.where(begins, pause, np.maximum(self._pause - 1, 0))

        target = np.where(self._pause > 0, 0.0, self._wish)
        # Cars brake harder than they quicken, and never drive into the one in front.
        change = np.clip(target - self._speed, -_BRAKING, _QUICKENING)
        self._speed = np.clip(self._speed + change, 0, self._room())
        self.along = self.along + self._speed

        for slot in np.flatnonzero(self.along > self._road_length[self.lane]):
            self._replace(int(slot))

    def _room(self) -> np.ndarray:
        """Distance (N,) that each vehicle may drive without touching the one in front."""
        # Sorted by lane and place, so the next one in the order is the one in front.
        order = np.lexsort((self.along, self.lane))
        length = self._length()
        room = np.full(len(order), np.inf)

        behind, front = order[:-1], order[1:]
        gap = self.along[front] - self.along[behind] - (length[front] + length[behind]) / 2 - _GAP
        room[behind] = np.where(self.lane[front] == self.lane[behind], np.maximum(gap, 0), np.inf)
        return room

    def _replace(self, slot: int) -> None:
        """Give the slot to a new vehicle at the start of a lane, if any lane is free there."""
        new_length = self._lengths[self.num_tracks % len(self._lengths)]
        others = np.arange(len(self.lane)) != slot
        length = self._length()

        for lane in self._rng.permutation(len(self._road_length)):
            ahead = others & (self.lane == lane)
            rear = (self.along - length / 2)[ahead].min(initial=np.inf)
            if rear > new_length / 2 + _GAP:
                break
        else:
            return  # it waits outside the picture and is asked again in the next frame

        self.lane[slot], self.along[slot] = lane, 0.0
        self.track[slot] = self.num_tracks
        self.num_tracks += 1
        self._wish[slot] = self._draw_wish(self.lane[slot : slot + 1])[0]
        self._speed[slot] = min(self._wish[slot], max(rear - new_length / 2 - _GAP, 0.0))
        self._pause[slot] = 0
