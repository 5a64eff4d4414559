"""Roads of a synthetic video: their paths, lanes, and the bridges where two of them cross.

Coordinates are pixels of the canvas, which is larger than the frames by the camera's drift.
Shapes: P points of a path, one pixel apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from shapely.geometry import LineString

OUTSIDE = 30.0
"""Roads begin and end this many pixels outside the canvas, so that nothing appears in sight."""

_LEAST_CROSSING_ANGLE = math.radians(35)


@dataclass
class Road:
    """One road.

    Attributes:
        path: (P, 2) middle line, xy pixels, one pixel apart.
        num_lanes: number of lanes, half of them in each direction, >= 2 and even.
        lane_width: pixels.
        hidden: stretches (low, high) of the path's arc length that lie under a road above this one.
    """

    path: np.ndarray
    num_lanes: int
    lane_width: float
    hidden: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Measure the path."""
        steps = np.diff(self.path, axis=0)
        self._along = np.concatenate([[0.0], np.hypot(*steps.T).cumsum()])
        self.length = float(self._along[-1])

        tangent = np.gradient(self.path, axis=0)
        self._tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
        self.half_width = self.lane_width * (self.num_lanes / 2 + 0.35)

    def place(self, along: np.ndarray, lane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute where vehicles are.

        Args:
            along: (N,) pixels driven since the start of the lane.
            lane: (N,) number of the lane; the upper half of the numbers drives backwards along the
                path.

        Returns:
            (N, 2) xy pixels and (N,) heading, radians clockwise on screen from the x axis.
        """
        back = lane >= self.num_lanes // 2
        arc = np.where(back, self.length - along, along)

        x, y = (np.interp(arc, self._along, self.path[:, axis]) for axis in (0, 1))
        tx, ty = (np.interp(arc, self._along, self._tangent[:, axis]) for axis in (0, 1))

        # Lanes count from the middle outwards on both sides, which are the drivers' right.
        side = np.where(back, self.num_lanes - 1 - lane, lane) + 0.5
        offset = np.where(back, -side, side) * self.lane_width
        heading = np.arctan2(ty, tx) + np.where(back, math.pi, 0.0)
        return np.stack([x - ty * offset, y + tx * offset], axis=1), heading

    def shown(self, along: np.ndarray, lane: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Compute the share of each vehicle that is not under a bridge.

        Args:
            along: (N,) as in ``place``.
            lane: (N,) as in ``place``.
            length: (N,) lengths of the vehicles, pixels.

        Returns:
            (N,) from 0, below the bridge, to 1.
        """
        arc = np.where(lane >= self.num_lanes // 2, self.length - along, along)
        share = np.ones(len(arc))
        for low, high in self.hidden:
            # Signed distance to the bridge: half a vehicle is seen when its middle is at the edge.
            outside = np.maximum(low - arc, arc - high)
            share = np.minimum(share, np.clip(0.5 + outside / length, 0, 1))
        return share

    def outline(self, low: float = 0.0, high: float = math.inf, grow: float = 0.0) -> np.ndarray:
        """Return the polygon that a stretch of the road covers.

        Args:
            low: start of the stretch, arc length in pixels.
            high: end of the stretch.
            grow: pixels added at both sides.

        Returns:
            (K, 2) xy pixels.
        """
        part = (self._along >= low) & (self._along <= high)
        points, normal = self.path[part], self._tangent[part][:, ::-1] * (-1, 1)
        reach = normal * (self.half_width + grow)
        return np.concatenate([points + reach, (points - reach)[::-1]])


def lay_roads(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    lane_width: float,
    lane_length: float,
    urban: bool,
) -> list[Road]:
    """Lay roads until they offer enough lanes.

    Args:
        rng: source of randomness.
        canvas: (height, width), pixels.
        lane_width: pixels.
        lane_length: wanted length of all lanes together, pixels; at least one road is laid.
        urban: narrow streets along two directions with bends, instead of wide roads.

    Returns:
        The roads, from the lowest to the highest; where two cross, the lower one knows.
    """
    roads: list[Road] = []
    grid = rng.uniform(0, math.pi)
    offered, failures = 0.0, 0
    # Failures are counted, because a full canvas takes no more roads.
    while (offered < lane_length or not roads) and failures < 40:
        num_lanes = int(rng.choice([2, 2, 4] if urban else [2, 4, 4, 6, 8]))
        path = _draw_path(rng, canvas, grid, urban)
        if len(path) < 0.5 * min(canvas):
            failures += 1
            continue

        road = Road(path, num_lanes, lane_width)
        if not _cross(road, roads):
            failures += 1
            continue

        roads.append(road)
        offered += road.length * num_lanes
    return roads


def _draw_path(
    rng: np.random.Generator, canvas: tuple[int, int], grid: float, urban: bool
) -> np.ndarray:
    """Draw a smooth path (P, 2) through the canvas; it is short if it misses the canvas."""
    height, width = canvas
    reach = math.ceil(math.hypot(height, width)) + 2 * OUTSIDE
    angle = grid + rng.integers(0, 2) * math.pi / 2 if urban else rng.uniform(0, math.pi)

    along = np.arange(-reach, reach + 1)
    turn = np.full(len(along), angle)
    if urban and rng.uniform() < 0.4:  # a bend to the other direction of the grid
        corner = reach + rng.uniform(-0.3, 0.3) * min(height, width)
        turn[int(corner) :] += rng.choice([-1, 1]) * math.pi / 2
        turn = gaussian_filter1d(turn, rng.uniform(12, 30), mode="nearest")
    elif not urban:
        wave = rng.uniform(1.0, 3.0) * max(height, width)
        turn += rng.uniform(0, 0.25) * np.sin(2 * math.pi * (along / wave + rng.uniform()))

    # Steps of one pixel: the heading is drawn, the path is its integral.
    steps = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    path = np.cumsum(steps, axis=0)
    anchor = np.array([rng.uniform(0.12, 0.88) * width, rng.uniform(0.12, 0.88) * height])
    path += anchor - path[len(path) // 2]

    inside = ((path > -OUTSIDE) & (path < np.array([width, height]) + OUTSIDE)).all(axis=1)
    # From the first to the last point inside, in one piece even if it leaves between.
    kept = np.flatnonzero(inside)
    return path[kept[0] : kept[-1] + 1]


def _cross(road: Road, below: list[Road]) -> bool:
    """Note the crossings with lower roads; False, and nothing noted, if one is too oblique."""
    line = LineString(road.path)
    found = []
    for other in below:
        lower = LineString(other.path)
        crossing = line.intersection(lower)
        points = getattr(crossing, "geoms", [crossing]) if not crossing.is_empty else []
        distance = line.distance(lower)
        if not points and distance < road.half_width + other.half_width + 6:
            return False

        for point in points:
            here, there = line.project(point), lower.project(point)
            angle = _angle_at(road, here) - _angle_at(other, there)
            if abs(math.sin(angle)) < math.sin(_LEAST_CROSSING_ANGLE):
                return False
            # The far lanes of the lower road reach the bridge earlier when it is oblique.
            half = (road.half_width + 1) / abs(math.sin(angle))
            found.append((other, (there - half, there + half)))

    # Only now, because a road that is refused must leave no trace.
    for other, stretch in found:
        other.hidden.append(stretch)
    return True


def _angle_at(road: Road, along: float) -> float:
    _, heading = road.place(np.array([along]), np.array([0]))
    return float(heading[0])
