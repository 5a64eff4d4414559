"""Things that are drawn but never labelled: trees, roofs, containers, rocks, markings.

They surround the objects and some resemble them: flat roofs and containers look like lorries, round
trees and pools like tanks, rocks and whitecaps like ships, painted crosses like planes.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np

from rsd2.synthetic.canvas import Canvas, Color, Pen, regular_polygon, shade
from rsd2.synthetic.textures import LAND, PAVED, WATER

from .site import Site, rectangle

_CIRCLE = regular_polygon(18)
_ROOFS: tuple[Color, ...] = (
    (164, 92, 72),
    (136, 74, 62),
    (120, 118, 116),
    (150, 146, 138),
    (96, 100, 110),
    (184, 168, 140),
)
_CONTAINERS: tuple[Color, ...] = (
    (164, 66, 48),
    (52, 92, 132),
    (70, 112, 82),
    (186, 138, 60),
    (142, 140, 138),
)


def _random(site: Site) -> Random:
    return Random(int(site.rng.integers(2**31)))


def add_tree(site: Site, u: float, v: float, radius: float) -> bool:
    """Plant a tree where there is room.

    Args:
        site: site to plant on.
        u: position of the trunk, scene units.
        v: position of the trunk, scene units.
        radius: radius of the crown, scene units.

    Returns:
        True if it was planted.
    """
    center, size = site.to_image((u, v)), radius * site.scale
    # Few trees stand on pavement, so most attempts there fail.
    allowed = LAND | PAVED if site.rng.uniform() < 0.15 else LAND
    if not site.in_view((u, v), radius) or not site.is_free(
        _CIRCLE * (0.9 * size) + center, allowed
    ):
        return False

    site.occupy(_CIRCLE * (0.6 * size) + center)
    rng = _random(site)
    color = shade((58, 82, 40), rng.uniform(0.75, 1.35))
    # The looks are drawn now, the tree later: drawing must not take random numbers of the site.
    lumps = [(rng.uniform(0, 2 * math.pi), rng.uniform(0.38, 0.62)) for _ in range(4)]

    def draw(canvas: Canvas) -> None:
        # Lumps that point away from the sun's shadow are lighter.
        sun = canvas.sun / math.hypot(*canvas.sun)
        canvas.polygon(_CIRCLE * (0.84 * size) + center, shade(color, 0.8))
        for angle, share in lumps:
            offset = np.array([math.cos(angle), math.sin(angle)]) * (0.55 * size)
            lit = 0.92 - 0.28 * float(offset @ sun) / size
            canvas.polygon(_CIRCLE * (share * size) + center + offset, shade(color, lit))
        canvas.polygon(_CIRCLE * (0.4 * size) + center - sun * (0.3 * size), shade(color, 1.3))

    site.add_clutter(
        2, draw, lambda canvas: canvas.cast_shadow(_CIRCLE * size + center, size * 0.9)
    )
    return True


def scatter_trees(site: Site, count: int, box: tuple[float, float, float, float]) -> None:
    """Plant trees at random places of a rectangle.

    Args:
        site: site to plant on.
        count: number of attempts.
        box: (u0, u1, v0, v1), scene units.
    """
    u, v = site.rng.uniform(box[0], box[1]), site.rng.uniform(box[2], box[3])
    for _ in range(count):
        # Trees come in groups: mostly a step away from the last one.
        if site.rng.uniform() < 0.3:
            u, v = site.rng.uniform(box[0], box[1]), site.rng.uniform(box[2], box[3])
        add_tree(site, u, v, site.rng.uniform(3.5, 9))
        u, v = u + site.rng.normal(0, 14), v + site.rng.normal(0, 14)


def add_building(
    site: Site, u: float, v: float, size: tuple[float, float], heading: float, flat: bool
) -> bool:
    """Raise a building where there is room; one with a gable only off the pavement.

    Args:
        site: site to build on.
        u: centre, scene units.
        v: centre, scene units.
        size: (length, width), scene units.
        heading: heading of its length, radians, in the frame of the site.
        flat: a flat roof with machines on it, instead of a gable.

    Returns:
        True if it was built.
    """
    center, turn = site.to_image((u, v)), heading + site.turn
    length, width = size[0] * site.scale, size[1] * site.scale
    corners = rectangle(center, turn, length, width)
    allowed = LAND | PAVED if flat else LAND  # no house on a street
    if not site.in_view((u, v), size[0] / 2) or not site.is_free(corners, allowed):
        return False

    site.occupy(corners)
    rng = _random(site)
    # The height decides the shadow's length; flat roofs belong to higher houses.
    height = rng.uniform(0.25, 0.5) * width * (1.8 if flat else 1.0)

    def draw(canvas: Canvas) -> None:
        pen, looks = Pen(canvas, center, turn, length, width), Random(int(height * 1e6))
        if flat:
            _draw_flat_roof(pen, looks)
        else:
            _draw_gable_roof(pen, looks)

    site.add_clutter(2, draw, lambda canvas: canvas.cast_shadow(corners, height))
    return True


def _draw_flat_roof(pen: Pen, rng: Random) -> None:
    color = shade(
        rng.choice(((186, 184, 178), (150, 148, 144), (204, 202, 198))), rng.uniform(0.9, 1.1)
    )

    # A parapet of the same width on all sides, whatever the shape of the roof.
    rim = 2.0 / max(pen.width, 4.0)
    pen.rect(-1, 1, -1, 1, shade(color, 1.15))
    pen.rect(
        -1 + rim * pen.width / pen.length,
        1 - rim * pen.width / pen.length,
        -1 + rim,
        1 - rim,
        color,
    )

    for _ in range(int(2 + pen.length / pen.width * 3)):
        x, y = rng.uniform(-0.85, 0.75), rng.uniform(-0.7, 0.5)
        dx = 0.16 * pen.width / pen.length
        # Each machine with its own small shadow, which makes it look like a lorry.
        pen.rect(x + 0.05 * dx, x + 1.3 * dx, y + 0.06, y + 0.26, shade(color, 0.6))
        pen.rect(x, x + dx, y, y + 0.18, shade(color, rng.uniform(0.8, 1.15)))


def _draw_gable_roof(pen: Pen, rng: Random) -> None:
    color = shade(rng.choice(_ROOFS), rng.uniform(0.9, 1.15))
    # One side of the gable faces the light, the other one turns away.
    bright = 1 + 0.22 * pen.light[1]
    pen.rect(-1, 1, 0, 1, shade(color, bright))
    pen.rect(-1, 1, -1, 0, shade(color, 2 - bright))

    for k in range(1, 5):
        for side, gain in ((1, bright), (-1, 2 - bright)):
            pen.rect(-1, 1, side * 0.2 * k - 0.02, side * 0.2 * k + 0.02, shade(color, 0.9 * gain))
    pen.rect(-1, 1, -0.04, 0.04, shade(color, 1.2))

    if rng.random() < 0.6:
        x = rng.uniform(-0.6, 0.5)
        dx = 0.2 * pen.width / pen.length
        pen.rect(x, x + dx, 0.25, 0.5, (92, 84, 80))


def add_containers(site: Site, u: float, v: float, heading: float, rows: int, columns: int) -> None:
    """Stack a block of freight containers, which resemble lorries without a cab.

    Args:
        site: site to stand on.
        u: centre, scene units.
        v: centre, scene units.
        heading: heading of their length, radians, in the frame of the site.
        rows: containers across.
        columns: containers along.
    """
    length, width = 17.0, 6.2
    cos, sin = math.cos(heading), math.sin(heading)
    for row in range(rows):
        for column in range(columns):
            du = (column - (columns - 1) / 2) * (length + 1.0)
            dv = (row - (rows - 1) / 2) * (width + 0.5)

            # Gaps, because a full block looks like one roof.
            if site.rng.uniform() > 0.82:
                continue

            center = site.to_image((u + cos * du - sin * dv, v + sin * du + cos * dv))
            box = rectangle(center, heading + site.turn, length * site.scale, width * site.scale)
            if not site.is_free(box, LAND | PAVED):
                continue

            site.occupy(box)
            color = shade(
                _CONTAINERS[site.rng.integers(len(_CONTAINERS))], site.rng.uniform(0.8, 1.1)
            )
            _add_container(site, center, heading + site.turn, box, color)


def _add_container(
    site: Site, center: np.ndarray, heading: float, box: np.ndarray, color: Color
) -> None:
    length, width = 17.0 * site.scale, 6.2 * site.scale

    def draw(canvas: Canvas) -> None:
        pen = Pen(canvas, center, heading, length, width)
        pen.rect(-1, 1, -1, 1, color)
        for k in range(1, 8):
            pen.rect(-1 + k / 4 - 0.02, -1 + k / 4 + 0.02, -0.9, 0.9, shade(color, 0.78))

    site.add_clutter(1, draw, lambda canvas: canvas.cast_shadow(box, 0.5 * width))


def add_rock(site: Site, u: float, v: float, radius: float) -> None:
    """Put a rock with a rim of foam into the water; small ones resemble boats.

    Args:
        site: site with water.
        u: centre, scene units.
        v: centre, scene units.
        radius: scene units.
    """
    center, size = site.to_image((u, v)), radius * site.scale
    # A circle with uneven, squeezed and turned radii.
    jitter = site.rng.uniform(0.6, 1.0, (len(_CIRCLE), 1))
    squeeze = np.array([1.0, site.rng.uniform(0.4, 0.8)])
    angle = site.rng.uniform(0, math.pi)
    spin = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline = (_CIRCLE * jitter * squeeze) @ spin * size

    if not site.is_free(outline * 1.3 + center, WATER):
        return

    site.occupy(outline * 1.1 + center)
    color = shade((108, 98, 84), site.rng.uniform(0.75, 1.1))
    foam = shade((178, 192, 196), site.rng.uniform(0.8, 1.05))

    def draw(canvas: Canvas) -> None:
        sun = canvas.sun / math.hypot(*canvas.sun)
        canvas.polygon(outline * 1.16 + center, foam)
        canvas.polygon(outline + center, shade(color, 0.7))
        canvas.polygon(outline * 0.66 + center - sun * (0.2 * size), color)

    site.add_clutter(0, draw)


def add_whitecap(site: Site, u: float, v: float) -> None:
    """Add the foam of a breaking wave.

    Args:
        site: site with water.
        u: centre, scene units.
        v: centre, scene units.
    """
    center = site.to_image((u, v))
    size, angle = site.rng.uniform(2.5, 7) * site.scale, site.rng.uniform(-0.5, 0.5)
    box = rectangle(center, angle, 2 * size, 0.5 * size)
    if not site.is_free(box, WATER):
        return

    # A crescent: thick in the middle, thin at both ends.
    along = np.linspace(-1, 1, 7)
    bend = np.stack([along * size, -0.25 * size * along**2], axis=1)
    thick = np.stack([along * 0, 0.16 * size * (1 - along**2)], axis=1)
    outline = np.concatenate([bend - thick, (bend + thick)[::-1]])

    cos, sin = math.cos(angle), math.sin(angle)
    points = outline @ np.array([[cos, sin], [-sin, cos]]) + center
    color = shade((160, 182, 190), site.rng.uniform(0.75, 1.1))
    site.add_clutter(-1, lambda canvas: canvas.polygon(points, color))


def add_marking(site: Site, u: float, v: float) -> None:
    """Paint a cross, an arrow or a landing circle, which resembles a plane or a tank.

    Args:
        site: site with pavement.
        u: centre, scene units.
        v: centre, scene units.
    """
    center, size = site.to_image((u, v)), site.rng.uniform(7, 14) * site.scale
    if not site.is_free(_CIRCLE * size + center, PAVED):
        return

    angle, kind = site.rng.uniform(0, 2 * math.pi), site.rng.integers(3)
    color = shade((226, 224, 210), site.rng.uniform(0.75, 0.95))
    site.occupy(_CIRCLE * size + center)

    def draw(canvas: Canvas) -> None:
        pen = Pen(canvas, center, angle, 2 * size, 2 * size)
        if kind == 0:
            pen.rect(-0.9, 0.9, -0.1, 0.1, color)
            pen.rect(-0.1, 0.1, -0.9, 0.9, color)
        elif kind == 1:
            pen.rect(-0.9, 0.5, -0.08, 0.08, color)
            pen.fill([(0.9, 0.0), (0.35, 0.35), (0.35, -0.35)], color)
        else:
            for turn in np.linspace(0, 2 * math.pi, 25)[:-1]:
                a = np.array([math.cos(turn), math.sin(turn)]) * (0.9 * size)
                b = np.array([math.cos(turn + 0.28), math.sin(turn + 0.28)]) * (0.9 * size)
                canvas.line(center + a, center + b, max(0.12 * size, 0.6), color)
            pen.rect(-0.4, 0.4, -0.34, -0.2, color)
            pen.rect(-0.4, 0.4, 0.2, 0.34, color)
            pen.rect(-0.07, 0.07, -0.3, 0.3, color)

    site.add_clutter(-1, draw)


def add_pool(site: Site, u: float, v: float, heading: float) -> None:
    """Dig a swimming pool, round or long, which resembles a tank or a vehicle.

    Args:
        site: site to dig in.
        u: centre, scene units.
        v: centre, scene units.
        heading: radians, in the frame of the site.
    """
    center, size = site.to_image((u, v)), site.rng.uniform(3.5, 6) * site.scale
    if not site.is_free(_CIRCLE * (1.5 * size) + center, LAND):
        return

    site.occupy(_CIRCLE * (1.4 * size) + center)
    is_round, turn = site.rng.uniform() < 0.4, heading + site.turn

    def draw(canvas: Canvas) -> None:
        pen = Pen(canvas, center, turn, 3 * size, 2 * size)
        if is_round:
            canvas.polygon(_CIRCLE * (1.2 * size) + center, (206, 202, 192))
            canvas.polygon(_CIRCLE * size + center, (92, 180, 200))
        else:
            pen.rect(-1, 1, -1, 1, (206, 202, 192))
            pen.rect(-0.8, 0.8, -0.7, 0.7, (86, 172, 198))

    site.add_clutter(0, draw)


def add_roundabout(site: Site, u: float, v: float, width: float) -> None:
    """Widen a road to a roundabout with a planted island, which resembles a tank.

    Args:
        site: site with a road.
        u: centre, scene units.
        v: centre, scene units.
        width: width of the road, scene units.
    """
    center = site.to_image((u, v))
    outer, inner = 1.15 * width * site.scale, 0.5 * width * site.scale
    island = _CIRCLE * inner + center
    if not site.in_view((u, v), width) or not site.is_free(island, PAVED):
        return

    site.ground.fill(_CIRCLE * outer + center, "asphalt")
    site.ground.fill(island, "grass")
    # Only the island is taken: vehicles may drive around it.
    site.occupy(_CIRCLE * (1.1 * inner) + center)
    rim = max(0.05 * width * site.scale, 0.4)

    def draw(canvas: Canvas) -> None:
        for a, b in zip(island, np.roll(island, -1, axis=0)):
            canvas.line(a, b, rim, (206, 204, 196))

    site.add_clutter(-1, draw)
