"""A building site: places objects and clutter on the ground of one scene, without overlaps.

Coordinates: scene units (u, v) in a frame that is turned against the image and centred in it; one
unit is ``scale`` pixels. Headings are radians clockwise on screen, in the same frame.
Shapes: P points, H and W image height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import cv2
import numpy as np
from numpy.typing import ArrayLike

from rsd2.synthetic.canvas import Canvas, Pen
from rsd2.synthetic.textures import LAND, PAVED, TAKEN, WATER, Ground

from .objects import OBJECT_CLASSES

MIN_SIDE = 5.0
LEAST_SHARE = 0.4
_BORDER_KEEP = 0.5


@dataclass
class Placed:
    """An object with its place.

    Args:
        name: class.
        center: (2,) image pixels.
        heading: radians clockwise on screen from the x axis of the image.
        length: pixels along the heading.
        width: pixels across it.
        style: seed of the looks.
        shaded: share of the object under the shadow of something tall.
    """

    name: str
    center: np.ndarray
    heading: float
    length: float
    width: float
    style: int
    shaded: float = 0.0

    def corners(self) -> np.ndarray:
        """Return the tight box.

        Returns:
            (4, 2) image pixels: front left, front right, rear right, rear left.
        """
        return rectangle(self.center, self.heading, self.length, self.width)


def rectangle(center: np.ndarray, heading: float, length: float, width: float) -> np.ndarray:
    """Return the corners of a turned rectangle.

    Args:
        center: (2,).
        heading: radians clockwise on screen.
        length: extent along the heading.
        width: extent across it.

    Returns:
        (4, 2): front left, front right, rear right, rear left; clockwise on screen.
    """
    cos, sin = math.cos(heading) / 2, math.sin(heading) / 2
    # Half sides as vectors; written out, because it runs for every attempt to place something.
    au, av, bu, bv = cos * length, sin * length, -sin * width, cos * width
    x, y = float(center[0]), float(center[1])
    return np.array(
        [
            (x + au - bu, y + av - bv),
            (x + au + bu, y + av + bv),
            (x - au + bu, y - av + bv),
            (x - au - bu, y - av - bv),
        ]
    )


@dataclass
class _Clutter:
    layer: int
    draw: Callable[[Canvas], None]
    shadow: Callable[[Canvas], None] | None = None


@dataclass
class Site:
    """A scene while it is laid out.

    Args:
        rng: source of randomness.
        height: H, pixels.
        width: W, pixels.
        scale: pixels per scene unit.
        base: material of the ground.
        max_objects: no more labelled objects than this are placed.
        turn: angle of the frame, radians.
    """

    rng: np.random.Generator
    height: int
    width: int
    scale: float
    base: str
    max_objects: int
    turn: float
    objects: list[Placed] = field(default_factory=list)
    clutter: list[_Clutter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ground = Ground(self.rng, self.height, self.width, self.scale, self.base)

        cos, sin = math.cos(self.turn) * self.scale, math.sin(self.turn) * self.scale
        self._rows = ((cos, sin), (-sin, cos))
        self._matrix = np.array(self._rows)
        self._middle = np.array([self.width / 2, self.height / 2])

        # Half extents of the upright box around the turned image: nothing in view lies outside.
        self.half_u = (abs(cos) * self.width + abs(sin) * self.height) / 2 / self.scale**2
        self.half_v = (abs(sin) * self.width + abs(cos) * self.height) / 2 / self.scale**2

    @property
    def room(self) -> int:
        """Number of objects that may still be placed."""
        return self.max_objects - len(self.objects)

    @property
    def side(self) -> float:
        """Shorter side of the image, scene units."""
        return min(self.height, self.width) / self.scale

    def to_image(self, points: ArrayLike) -> np.ndarray:
        """Map scene units to image pixels.

        Args:
            points: (..., 2) scene units.

        Returns:
            (..., 2) image pixels.
        """
        return np.asarray(points, dtype=np.float64) @ self._matrix + self._middle

    def in_view(self, point: tuple[float, float], margin: float = 0.0) -> bool:
        """Tell whether a point lies in the image.

        Args:
            point: scene units.
            margin: scene units by which the image is widened.

        Returns:
            True or False.
        """
        # The product of `to_image` in plain numbers, which is faster for one point.
        (a, b), (c, d) = self._rows
        x = point[0] * a + point[1] * c + self.width / 2
        y = point[0] * b + point[1] * d + self.height / 2
        m = margin * self.scale
        return bool(-m <= x <= self.width + m and -m <= y <= self.height + m)

    def sample_size(
        self, name: str, low: float = 0.0, high: float = math.inf
    ) -> tuple[float, float]:
        """Draw the size of an object.

        Args:
            name: class.
            low: smallest length, scene units.
            high: largest length, scene units.

        Returns:
            (length, width), scene units.
        """
        kind = OBJECT_CLASSES[name]
        low, high = max(low, kind.length[0]), max(min(high, kind.length[1]), kind.length[0])
        # Log-uniform: as many between 20 and 40 as between 40 and 80.
        length = low * (high / low) ** self.rng.uniform() if high > low else low

        share = math.log(length / kind.length[0]) / math.log(kind.length[1] / kind.length[0])
        aspect = kind.aspect[0] + (kind.aspect[1] - kind.aspect[0]) * share
        # A tank is round, so its box is a square.
        if name != "storage-tank":
            aspect *= self.rng.uniform(0.93, 1.07)
        return length, length * aspect

    def _window(self, corners: np.ndarray, value: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the zones under a convex polygon and a mask of it; None if it is out of view."""
        fixed = np.rint(corners * 16 - 8).astype(np.int32)
        x, y, width, height = cv2.boundingRect(fixed >> 4)
        left, top = max(x, 0), max(y, 0)
        zone = self.ground.zone[top : max(y + height + 1, 0), left : max(x + width + 1, 0)]
        if not zone.size:
            return None

        mask = np.zeros(zone.shape, dtype=np.uint8)
        cv2.fillConvexPoly(mask, fixed - (left * 16, top * 16), value, cv2.LINE_8, 4)
        return zone, mask

    def is_free(self, corners: np.ndarray, zones: int) -> bool:
        """Tell whether a polygon is clear of everything that stands and lies on allowed ground.

        Args:
            corners: (P, 2) image pixels, convex.
            zones: allowed ground: LAND, WATER, PAVED or a sum of them.

        Returns:
            True if it is; False also when the polygon is out of view.
        """
        blocked = (LAND | WATER | PAVED | TAKEN) & ~zones
        # Most rejections show between two far vertices already, which is cheaper to look at.
        (x0, y0), (x1, y1) = corners[0].tolist(), corners[len(corners) // 2].tolist()
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        if 0 <= x < self.width and 0 <= y < self.height and self.ground.zone[y, x] & blocked:
            return False

        found = self._window(corners, blocked)
        return found is not None and not cv2.bitwise_and(*found).any()

    def occupy(self, corners: np.ndarray) -> None:
        """Mark a polygon as taken.

        Args:
            corners: (P, 2) image pixels, convex.
        """
        found = self._window(corners, TAKEN)
        if found is not None:
            found[0][:] |= found[1]

    def place(
        self,
        name: str,
        u: float,
        v: float,
        heading: float,
        size: tuple[float, float],
        zones: int = LAND | PAVED,
        carried: bool = False,
    ) -> bool:
        """Put a labelled object on the site if there is room for it.

        Args:
            name: class.
            u: centre, scene units.
            v: centre, scene units.
            heading: radians, in the frame of the site.
            size: (length, width), scene units.
            zones: ground that the object may stand on: LAND, WATER, PAVED or a sum of them.
            carried: the object stands on a structure (a car on a bridge): room is not checked.

        Returns:
            True if it was placed.
        """
        if self.room <= 0 or not self.in_view((u, v), size[0] / 2):
            return False

        length, width = size[0] * self.scale, size[1] * self.scale
        # The box stays wide enough for its heading to be seen.
        width = max(width, MIN_SIDE)
        if name == "storage-tank":
            heading = -self.turn - math.pi / 2  # a circle has no heading: its box is upright

        center = self.to_image((u, v))
        placed = Placed(
            name, center, heading + self.turn, length, width, int(self.rng.integers(2**31))
        )

        # Half of the objects at the border are left out, or small scenes would be full of them.
        share = inside_share(placed.corners(), self.height, self.width)
        if share < LEAST_SHARE or (share < 0.999 and self.rng.uniform() > _BORDER_KEEP):
            return False

        roomy = rectangle(center, placed.heading, length + 1.5, width + 1.5)
        if not carried and not self.is_free(roomy, zones):
            return False

        self.occupy(placed.corners())
        self.objects.append(placed)
        return True

    def add_clutter(
        self,
        layer: int,
        draw: Callable[[Canvas], None],
        shadow: Callable[[Canvas], None] | None = None,
    ) -> None:
        """Add something that is drawn but not labelled.

        Args:
            layer: -1 for markings on the ground, 0 and 1 as the objects, 2 above all objects.
            draw: function that draws the thing.
            shadow: function that casts its shadow; None for none.
        """
        self.clutter.append(_Clutter(layer, draw, shadow))

    def mark_line(
        self, start: tuple[float, float], end: tuple[float, float], width: float, color: tuple
    ) -> None:
        """Paint a line on the ground.

        Args:
            start: (u, v), scene units.
            end: (u, v), scene units.
            width: scene units.
            color: RGB, 0-255.
        """
        a, b = self.to_image(start), self.to_image(end)
        # A thinner line would vanish between the sub-pixels.
        thick = max(width * self.scale, 0.35)
        self.add_clutter(-1, lambda canvas: canvas.line(a, b, thick, color))

    def draw(self, canvas: Canvas, shade_strength: float) -> None:
        """Draw markings, objects and clutter, layer by layer, each with its shadows first.

        Args:
            canvas: canvas that shows the ground already.
            shade_strength: darkness of the shadows, 0 to 1.
        """
        for layer in (-1, 0, 1, 2):
            things = [item for item in self.clutter if item.layer == layer]
            members = [o for o in self.objects if OBJECT_CLASSES[o.name].layer == layer]
            pens = [Pen(canvas, o.center, o.heading, o.length, o.width) for o in members]

            for item in things:
                if item.shadow is not None:
                    item.shadow(canvas)
            # Only trees and houses, whose shadows are pending now, are taller than objects.
            if layer == 2:
                for placed in self.objects:
                    placed.shaded = canvas.shadow_share(placed.corners())

            # Shadows before bodies: an object darkens the ground and its neighbours, not itself.
            for placed, pen in zip(members, pens):
                kind = OBJECT_CLASSES[placed.name]
                kind.shadow(pen, placed.style, kind.height * placed.width)

            canvas.apply_shadows(shade_strength)
            for placed, pen in zip(members, pens):
                OBJECT_CLASSES[placed.name].draw(pen, Random(placed.style))
            for item in things:
                item.draw(canvas)


def inside_share(corners: np.ndarray, height: int, width: int) -> float:
    """Return the share of a convex polygon's area that lies inside the image.

    Args:
        corners: (P, 2) image pixels.
        height: H.
        width: W.

    Returns:
        Between 0 and 1.
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    # Most objects lie inside, where the exact area is not needed.
    if low[0] >= 0 and low[1] >= 0 and high[0] <= width and high[1] <= height:
        return 1.0

    frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), frame)
    return float(min(area / max(cv2.contourArea(corners.astype(np.float32)), 1e-6), 1.0))
