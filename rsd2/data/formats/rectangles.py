"""Rectangles as label tools state them: centre, sides and an angle, or four corners.

Image coordinates: x to the right, y down. An angle is the direction from the first corner to the
second, clockwise on screen. Corner 0 is the upper left one of the rectangle before it is turned,
and the others follow clockwise on screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

EXACT = 5e-5
"""Pixels. A quadrilateral is a rectangle if no corner is farther than this from a rectangle's."""


def rectangle_corners(
    cx: float, cy: float, width: float, height: float, clockwise_rad: float
) -> list[float]:
    """Return the corners of a rectangle that is turned about its centre.

    Args:
        cx: x of the centre, pixels.
        cy: y of the centre, pixels.
        width: length of the side whose direction the angle gives, pixels.
        height: length of the other side, pixels.
        clockwise_rad: angle in radians, clockwise on screen.

    Returns:
        x1, y1, ... y4 in pixels.
    """
    cos, sin = math.cos(clockwise_rad), math.sin(clockwise_rad)
    ux, uy = cos * width / 2, sin * width / 2
    vx, vy = -sin * height / 2, cos * height / 2

    return [
        *(cx - ux - vx, cy - uy - vy),
        *(cx + ux - vx, cy + uy - vy),
        *(cx + ux + vx, cy + uy + vy),
        *(cx - ux + vx, cy - uy + vy),
    ]


def upright_corners(x: float, y: float, width: float, height: float) -> list[float]:
    """Return the corners of a rectangle with upright sides.

    Args:
        x: x of the left side, pixels.
        y: y of the upper side, pixels.
        width: width, pixels.
        height: height, pixels.

    Returns:
        x1, y1, ... y4 in pixels, clockwise on screen from the upper left.
    """
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def fit_rectangle(polygon: np.ndarray) -> tuple[tuple[float, float, float, float, float], bool]:
    """Describe a quadrilateral as a rectangle whose corner 0 is the first vertex.

    Args:
        polygon: (4, 2) xy in pixels; a rectangle in either sense of rotation is described exactly,
            any other quadrilateral by the smallest rectangle around it.

    Returns:
        centre x and y, width, height in pixels and the angle in radians, clockwise on screen, in
        [-pi, pi]; whether the quadrilateral is a rectangle.
    """
    first = polygon[0]
    edges = np.roll(polygon, -1, axis=0) - polygon
    if edges[0, 0] * edges[1, 1] < edges[0, 1] * edges[1, 0]:  # counter-clockwise on screen
        polygon = polygon[[0, 3, 2, 1]]

    # Means of opposite sides halve the rounding errors of single corners.
    along = (polygon[1] - polygon[0] + polygon[2] - polygon[3]) / 2
    across = (polygon[3] - polygon[0] + polygon[2] - polygon[1]) / 2
    centre = polygon.mean(axis=0)
    box = (*centre, math.hypot(*along), math.hypot(*across), math.atan2(along[1], along[0]))

    # Only the corners tell: a parallelogram has the same means as a rectangle.
    error = np.abs(np.reshape(rectangle_corners(*box), (4, 2)) - polygon).max()
    if error <= EXACT:
        x, y, width, height, angle = map(float, box)
        return (x, y, width, height, angle), True

    return _start_at(smallest_rectangle(polygon), first), False


def smallest_rectangle(points: np.ndarray) -> tuple[float, float, float, float, float]:
    """Return the rectangle of the smallest area around points (Freeman and Shapira, 1975).

    Args:
        points: (N, 2) xy in pixels, N >= 1.

    Returns:
        centre x and y, width, height in pixels and the angle in radians, clockwise on screen.
    """
    # Relative to their mean, because large coordinates of scenes lose decimals in single precision.
    origin = points.mean(axis=0)
    points = points - origin

    # OpenCV computes in single precision, so it only chooses the points.
    hull = points[cv2.convexHull(points.astype(np.float32), returnPoints=False)[:, 0]]
    edges = np.roll(hull, -1, axis=0) - hull
    edges = edges[np.hypot(*edges.T) > 0]
    if not len(edges):
        return float(origin[0]), float(origin[1]), 0.0, 0.0, 0.0

    # A side of the smallest rectangle lies along an edge of the hull, so every edge is tried.
    along = edges / np.hypot(*edges.T)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    u, v = hull @ along.T, hull @ across.T
    widths, heights = np.ptp(u, axis=0), np.ptp(v, axis=0)
    best = int(np.argmin(widths * heights))

    middle_u = (u[:, best].min() + u[:, best].max()) / 2
    middle_v = (v[:, best].min() + v[:, best].max()) / 2
    centre = origin + middle_u * along[best] + middle_v * across[best]
    angle = math.atan2(along[best, 1], along[best, 0])
    return float(centre[0]), float(centre[1]), float(widths[best]), float(heights[best]), angle


def polygon_corners(values: Sequence[float]) -> list[float]:
    """Turn a polygon of any number of points into a quadrilateral.

    Args:
        values: x1, y1, x2, y2, ... in pixels; the first point may be repeated at the end.

    Returns:
        four points unchanged; for another number of points, the corners of the smallest rectangle.

    Raises:
        ValueError: for fewer than three points, or an odd number of values.
    """
    if len(values) % 2:
        raise ValueError(f"the polygon has {len(values)} numbers, but each point needs two")

    values = list(values)
    # Tools close outlines; the repeated point would make five corners of a quadrilateral.
    if len(values) > 8 and values[:2] == values[-2:]:
        values = values[:-2]

    if len(values) == 8:
        return values
    if len(values) < 6:
        raise ValueError(f"the polygon has {len(values) // 2} points instead of three or more")

    return rectangle_corners(*smallest_rectangle(np.array(values, dtype=float).reshape(-1, 2)))


def _start_at(
    box: tuple[float, float, float, float, float], first: np.ndarray
) -> tuple[float, float, float, float, float]:
    """Describe a rectangle such that its corner 0 is the one nearest to a point."""
    cx, cy, width, height, angle = box
    corners = np.reshape(rectangle_corners(*box), (4, 2))
    nearest = int(np.hypot(*(corners - first).T).argmin())
    # After a quarter turn the sides change places.
    if nearest % 2:
        width, height = height, width

    angle = math.remainder(angle + nearest * math.pi / 2, 2 * math.pi)
    return cx, cy, width, height, angle
