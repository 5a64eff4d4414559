"""Supersampled drawing surface and the pen that draws one object in its own frame.

Coordinates: image pixels with edges at integers (the centre of the first pixel is 0.5, 0.5), x to
the right, y down. Shapes: P points, S supersampling factor, H and W image height and width.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike

_SHIFT = 4  # fixed-point bits of cv2's polygon coordinates
_FIXED = 1 << _SHIFT

Color = tuple[int, int, int]


def shade(color: Color, factor: float) -> Color:
    """Multiply a colour by a brightness factor and clip it.

    Args:
        color: RGB, 0-255.
        factor: >= 0; 1 keeps the colour.

    Returns:
        RGB, 0-255.
    """
    red, green, blue = color
    return (
        min(255, int(red * factor)),
        min(255, int(green * factor)),
        min(255, int(blue * factor)),
    )


def regular_polygon(num_points: int, radius: float = 1.0) -> np.ndarray:
    """Return the corners of a regular polygon around the origin: a circle when there are many.

    Args:
        num_points: P >= 3.
        radius: radius of the circumscribed circle.

    Returns:
        (P, 2) float64.
    """
    angles = np.arange(num_points) * (2 * math.pi / num_points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius


CIRCLE = regular_polygon(32)


class Canvas:
    """An RGB surface of S x S sub-pixels per image pixel, with a layer of pending shadows.

    Args:
        height: H of the image, pixels.
        width: W of the image, pixels.
        supersample: S >= 1.
        sun: (x, y) shift of the shadow of a point one pixel high, in pixels.
    """

    def __init__(self, height: int, width: int, supersample: int, sun: tuple[float, float]):
        self.supersample = supersample
        self.sun = np.asarray(sun, dtype=np.float64)
        self.image = np.zeros((height * supersample, width * supersample, 3), dtype=np.uint8)
        self.shadow = np.zeros(self.image.shape[:2], dtype=np.uint8)
        # (left, top, right, bottom) of the pending shadows, sub-pixels.
        self._shaded, self._has_shadow = (0, 0, 0, 0), False

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        # cv2 counts from the centre of a pixel, we count from its corner: half a sub-pixel less.
        scaled = points * (self.supersample * _FIXED) - 0.5 * _FIXED
        return np.rint(scaled).astype(np.int32)

    def polygon(self, points: np.ndarray, color: Color) -> None:
        """Fill a simple polygon.

        Args:
            points: (P, 2) image pixels.
            color: RGB, 0-255.
        """
        cv2.fillPoly(self.image, [self._fixed(points)], color, cv2.LINE_8, _SHIFT)

    def line(self, start: np.ndarray, end: np.ndarray, width: float, color: Color) -> None:
        """Draw a straight line with flat ends; its width may be less than a sub-pixel.

        Args:
            start: (2,) image pixels.
            end: (2,) image pixels.
            width: pixels.
            color: RGB, 0-255.
        """
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        if length < 1e-6:
            return

        # cv2 fills the outline too, which widens every polygon by one sub-pixel.
        half = max(width - 1.0 / self.supersample, 0.0) / 2
        dx, dy = (y0 - y1) * half / length, (x1 - x0) * half / length

        corners = [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)]
        self.polygon(np.array(corners), color)

    def cast_shadow(self, points: np.ndarray, height: float, *, raised: bool = False) -> None:
        """Add the shadow of a shape to the pending shadows.

        Args:
            points: (P, 2) outline in image pixels; convex unless ``raised``.
            height: pixels above the ground.
            raised: the shape floats (a wing): only its shifted outline is dark, not the sweep.
        """
        shifted = points + self.sun * height
        # A body that stands on the ground shades all between its foot and its tip.
        outline = (
            shifted
            if raised
            else cv2.convexHull(np.concatenate([points, shifted]).astype(np.float32)).reshape(-1, 2)
        )

        fixed = self._fixed(outline)
        cv2.fillPoly(self.shadow, [fixed], 255, cv2.LINE_8, _SHIFT)
        x, y, width, height = cv2.boundingRect(fixed >> _SHIFT)
        # Only this part of the surface is darkened later, which is what large scenes need.
        reach = (x - 2, y - 2, x + width + 2, y + height + 2)
        if self._has_shadow:
            left, top, right, bottom = self._shaded
            reach = (
                min(reach[0], left),
                min(reach[1], top),
                max(reach[2], right),
                max(reach[3], bottom),
            )
        self._shaded, self._has_shadow = reach, True

    def shadow_share(self, points: np.ndarray) -> float:
        """Return the share of a polygon that lies under the pending shadows.

        Args:
            points: (P, 2) image pixels.

        Returns:
            Between 0 and 1; 0 when the polygon is outside the image.
        """
        if not self._has_shadow:
            return 0.0

        fixed = self._fixed(points)
        x, y, columns, rows = cv2.boundingRect(fixed >> _SHIFT)
        left, top = max(x, 0), max(y, 0)
        # Cut to the image: numpy would count a negative start from the far end.
        window = self.shadow[top : max(y + rows, 0), left : max(x + columns, 0)]
        if not window.any():
            return 0.0

        mask = np.zeros(window.shape, dtype=np.uint8)
        cv2.fillPoly(mask, [fixed - (left << _SHIFT, top << _SHIFT)], 255, cv2.LINE_8, _SHIFT)
        return cv2.countNonZero(window & mask) / max(cv2.countNonZero(mask), 1)

    def apply_shadows(self, strength: float) -> None:
        """Darken the surface under the pending shadows and forget them.

        Args:
            strength: 0 (no effect) to 1 (black).
        """
        if not self._has_shadow:
            return

        left, top, right, bottom = self._shaded
        rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
        # Views: what follows changes the surface itself.
        shadow, image = self.shadow[rows, columns], self.image[rows, columns]
        if shadow.size:
            # The sky lights a shadow a little, however dark the ground is.
            dark = cv2.convertScaleAbs(image, alpha=1 - strength, beta=4 * strength)
            cv2.copyTo(dark, shadow, image)
            shadow[:] = 0
        self._has_shadow = False

    def downsample(self) -> np.ndarray:
        """Average the sub-pixels.

        Returns:
            (H, W, 3) uint8 RGB image.
        """
        factor = self.supersample
        height, width = self.image.shape[0] // factor, self.image.shape[1] // factor
        return cv2.resize(self.image, (width, height), interpolation=cv2.INTER_AREA)


class Pen:
    """Draws one object in its own frame: x forward and y to the right, both -1 to 1 in its box.

    Args:
        canvas: canvas to draw on.
        center: (2,) image pixels.
        heading: direction of the front, radians clockwise on screen from the x axis.
        length: extent along the heading, pixels.
        width: extent across it, pixels.
    """

    def __init__(
        self, canvas: Canvas, center: np.ndarray, heading: float, length: float, width: float
    ):
        self.canvas = canvas
        self.length, self.width = length, width
        self.center = np.asarray(center, dtype=np.float64)

        cos, sin = math.cos(heading), math.sin(heading)
        # One sub-pixel less on each axis, because cv2 fills the outline of a polygon too.
        inset = 1.0 / canvas.supersample
        half_length, half_width = max(length - inset, 0.1) / 2, max(width - inset, 0.1) / 2
        self._matrix = np.array(
            [[cos * half_length, sin * half_length], [-sin * half_width, cos * half_width]]
        )

        # Object's frame to cv2's fixed-point sub-pixels in one step.
        self._fixed_matrix = self._matrix * (canvas.supersample * _FIXED)
        self._fixed_center = self.center * (canvas.supersample * _FIXED) - 0.5 * _FIXED

        sun = canvas.sun / max(math.hypot(*canvas.sun), 1e-6)
        # Towards the light, in the object's axes.
        self.light = (-(cos * sun[0] + sin * sun[1]), -(-sin * sun[0] + cos * sun[1]))

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Map points of the object's frame to the image.

        Args:
            points: (P, 2), -1 to 1 inside the box.

        Returns:
            (P, 2) image pixels.
        """
        return np.asarray(points, dtype=np.float64) @ self._matrix + self.center

    def fill(self, points: ArrayLike, color: Color) -> None:
        """Fill a polygon given in the object's frame.

        Args:
            points: (P, 2), -1 to 1 inside the box.
            color: RGB, 0-255.
        """
        # One product per polygon, because a scene has many thousands of them.
        fixed = np.rint(np.dot(points, self._fixed_matrix) + self._fixed_center).astype(np.int32)
        cv2.fillPoly(self.canvas.image, [fixed], color, cv2.LINE_8, _SHIFT)

    def rect(self, x0: float, x1: float, y0: float, y1: float, color: Color) -> None:
        """Fill an axis-parallel rectangle of the object's frame.

        Args:
            x0: rear end.
            x1: front end.
            y0: left side.
            y1: right side.
            color: RGB, 0-255.
        """
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse of the object's frame.

        Args:
            x: centre.
            y: centre.
            rx: half axis along x.
            ry: half axis along y.
            color: RGB, 0-255.
        """
        self.fill(CIRCLE * (rx, ry) + (x, y), color)

    def shadow(self, points: np.ndarray, height: float, *, raised: bool = False) -> None:
        """Cast the shadow of a shape given in the object's frame.

        Args:
            points: (P, 2), -1 to 1 inside the box.
            height: pixels above the ground.
            raised: see :meth:`Canvas.cast_shadow`.
        """
        self.canvas.cast_shadow(self.to_image(points), height, raised=raised)
