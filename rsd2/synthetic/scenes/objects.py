"""The labelled objects of the synthetic scenes: how each class looks from above.

Every drawer works in the frame of a :class:`Pen`: x from -1 (rear) to 1 (front), y from -1 (left)
to 1 (right); the drawing touches all four sides: the box of the pen is the tight label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from rsd2.synthetic.canvas import CIRCLE, Color, Pen, shade

_GLASS: Color = (38, 46, 56)
_CAR_COLORS: tuple[Color, ...] = (
    (236, 236, 234),
    (224, 226, 228),
    (186, 188, 190),
    (120, 124, 130),
    (38, 40, 44),
    (52, 54, 60),
    (158, 34, 34),
    (42, 72, 138),
    (206, 190, 150),
    (60, 96, 74),
)
_CARGO_COLORS: tuple[Color, ...] = (
    (234, 234, 230),
    (226, 228, 230),
    (206, 208, 208),
    (196, 92, 50),
    (62, 104, 150),
    (150, 54, 48),
    (84, 122, 92),
)
_RECT = np.array([(1, -1), (1, 1), (-1, 1), (-1, -1)], dtype=np.float64)
_CAR = np.array(
    [(1, -0.6), (1, 0.6), (0.86, 1), (-0.88, 1), (-1, 0.7), (-1, -0.7), (-0.88, -1), (0.86, -1)]
)
_ROOF = np.array([(0.16, -0.72), (0.16, 0.72), (-0.56, 0.68), (-0.56, -0.68)])
_BUS = np.array(
    [(1, -0.75), (1, 0.75), (0.96, 1), (-0.97, 1), (-1, 0.8), (-1, -0.8), (-0.97, -1), (0.96, -1)]
)


def _draw_small_vehicle(pen: Pen, rng: Random) -> None:
    color = shade(rng.choice(_CAR_COLORS), rng.uniform(0.88, 1.06))
    pen.fill(_CAR, color)

    # The side that is turned away from the light is darker.
    lit_side = -1 if pen.light[1] < 0 else 1
    pen.rect(-0.9, 0.85, -lit_side * 0.78, -lit_side, shade(color, 0.78))
    pen.fill([(0.46, -0.82), (0.46, 0.82), (0.14, 0.7), (0.14, -0.7)], _GLASS)

    if rng.random() < 0.25:  # a pick-up: an open bed behind the cabin
        pen.rect(-0.92, -0.2, -0.72, 0.72, shade(color, 0.55))
        pen.rect(-0.2, 0.16, -0.74, 0.74, shade(color, 1.08))
    else:
        pen.fill([(-0.82, -0.78), (-0.82, 0.78), (-0.54, 0.66), (-0.54, -0.66)], _GLASS)
        pen.fill(_ROOF, shade(color, 1.1))


def _draw_large_vehicle(pen: Pen, rng: Random) -> None:
    kind = rng.random()
    if kind < 0.3:
        _draw_bus(pen, rng)
        return

    cab = shade(rng.choice(_CAR_COLORS), rng.uniform(0.9, 1.05))
    cargo = shade(rng.choice(_CARGO_COLORS), rng.uniform(0.9, 1.05))
    # The cab of every lorry is about as long as it is wide, however long the lorry is.
    front = 1 - 2 * min(0.85 * pen.width / pen.length, 0.4)
    pen.rect(-0.96, 0.9, -0.55, 0.55, (48, 48, 50))
    pen.fill([(1, -0.8), (1, 0.8), (front, 0.94), (front, -0.94)], cab)
    pen.rect(0.86, 0.955, -0.74, 0.74, _GLASS)

    box_front = front - 0.06
    if kind < 0.45:  # a tank lorry
        pen.fill(_capsule(-1, box_front, 1.0), shade(cargo, 0.8))
        pen.fill(_capsule(-0.98, box_front - 0.02, 0.55), shade(cargo, 1.1))
        for k in range(3):
            x = -0.7 + 0.45 * k
            pen.ellipse(x, 0, 0.22 * pen.width / pen.length, 0.22, (70, 72, 74))
        return

    pen.rect(-1, box_front, -1, 1, cargo)

    lit_side = -1 if pen.light[1] < 0 else 1
    pen.rect(-1, box_front, -lit_side * 0.72, -lit_side, shade(cargo, 0.74))
    pen.rect(-1, box_front, lit_side * 0.8, lit_side, shade(cargo, 1.12))
    for k in range(1, 4):
        x = -1 + (box_front + 1) * k / 4
        pen.rect(x - 0.008, x + 0.008, -0.72, 0.72, shade(cargo, 0.86))


def _draw_bus(pen: Pen, rng: Random) -> None:
    color = rng.choice(((240, 240, 236), (228, 176, 44), (232, 232, 228), (176, 48, 44)))
    pen.fill(_BUS, color)
    lit_side = -1 if pen.light[1] < 0 else 1
    pen.rect(-0.96, 0.94, -lit_side * 0.78, -lit_side, shade(color, 0.72))
    pen.rect(0.87, 0.96, -0.84, 0.84, _GLASS)
    pen.rect(-0.5, -0.25, -0.42, 0.42, shade(color, 0.78))
    pen.rect(0.2, 0.38, -0.42, 0.42, shade(color, 0.78))


def _capsule(x0: float, x1: float, half: float) -> np.ndarray:
    return np.array(
        [(x1, -half * 0.5), (x1, half * 0.5), (x1 - 0.05, half), (x0 + 0.05, half),
         (x0, half * 0.5), (x0, -half * 0.5), (x0 + 0.05, -half), (x1 - 0.05, -half)]
    )  # fmt: skip


def _mirrored(side: list[tuple[float, float]]) -> list[np.ndarray]:
    points = np.array(side)
    return [points, points * (1, -1)]


@dataclass(frozen=True)
class _Airframe:
    """Outline of a type of plane; the wings and tails are given for the right side."""

    wing: tuple[tuple[float, float], ...]
    tail: tuple[tuple[float, float], ...]
    body: float
    engines: tuple[float, ...]


_AIRFRAMES = (
    _Airframe(  # airliner: swept wings, engines ahead of them
        ((0.28, 0.06), (-0.06, 0.52), (-0.24, 1.0), (-0.37, 1.0), (-0.24, 0.4), (-0.16, 0.06)),
        ((-0.76, 0.02), (-0.9, 0.38), (-1.0, 0.38), (-0.94, 0.02)), 0.115, (0.3, 0.56),
    ),
    _Airframe(  # small propeller plane: straight wings ahead of the middle
        ((0.4, 0.04), (0.36, 1.0), (0.1, 1.0), (0.02, 0.04)),
        ((-0.74, 0.02), (-0.78, 0.4), (-1.0, 0.4), (-1.0, 0.02)), 0.12, (),
    ),
    _Airframe(  # fighter: delta wings
        ((0.34, 0.08), (-0.5, 1.0), (-0.7, 1.0), (-0.7, 0.06)),
        ((-0.72, 0.1), (-0.9, 0.5), (-1.0, 0.5), (-0.98, 0.06)), 0.14, (),
    ),
)  # fmt: skip


def _airframe(rng: Random) -> int:
    return rng.choices((0, 1, 2), (0.65, 0.22, 0.13))[0]


def _fuselage(half: float) -> np.ndarray:
    right = [(1.0, 0.0), (0.96, 0.5 * half), (0.84, 0.92 * half), (0.6, half), (-0.5, half),
             (-0.8, 0.55 * half), (-1.0, 0.16 * half)]  # fmt: skip
    return np.array(right + [(x, -y) for x, y in reversed(right[1:])])


def _draw_plane(pen: Pen, rng: Random) -> None:
    kind = _airframe(rng)
    frame = _AIRFRAMES[kind]
    if kind == 2:
        color = shade((134, 140, 144), rng.uniform(0.8, 1.15))
    else:
        color = shade((242, 242, 240), rng.uniform(0.88, 1.03))
    accent = rng.choice(((40, 70, 140), (170, 40, 44), (224, 140, 40), (50, 110, 90), (90, 92, 98)))

    # The half-wing that is turned away from the light is darker.
    sides = ((1, 0.9 + 0.1 * pen.light[1]), (-1, 0.9 - 0.1 * pen.light[1]))
    # Engines first, because the wing covers their rear.
    for sign, gain in sides:
        flip = (1, sign)
        for y in frame.engines:
            x = 0.28 - 0.75 * y
            size = 0.5 * frame.body
            pen.rect(x - 0.02, x + 0.16, sign * y - size, sign * y + size, (112, 116, 122))

        pen.fill(np.array(frame.wing) * flip, shade(color, 0.9 * gain))
        pen.fill(np.array(frame.tail) * flip, shade(accent if kind == 1 else color, 0.86 * gain))

        if kind == 0:
            trailing = np.array([(-0.2, 0.12), (-0.28, 0.4), (-0.23, 0.4), (-0.15, 0.12)])
            pen.fill(trailing * flip, shade(color, 0.66))

    pen.fill(_fuselage(frame.body), shade(color, 0.96))
    dark_side = -1 if pen.light[1] > 0 else 1
    pen.rect(-0.55, 0.66, dark_side * 0.45 * frame.body, dark_side * frame.body, shade(color, 0.76))
    pen.fill([(0.9, -0.06), (0.9, 0.06), (0.82, 0.09), (0.82, -0.09)], _GLASS)

    if kind == 2:
        pen.ellipse(0.62, 0, 0.14, 0.08, _GLASS)
    pen.fill([(-0.66, 0.0), (-0.98, 0.035), (-1.0, 0.0), (-0.98, -0.035)], accent)
    if kind == 0:
        pen.rect(-0.98, -0.8, -0.03, 0.03, accent)


def _shadow_plane(pen: Pen, style: int, height: float) -> None:
    # The first draw from the seed, as in `_draw_plane`, gives the same type of plane.
    frame = _AIRFRAMES[_airframe(Random(style))]
    for points in _mirrored(list(frame.wing)) + _mirrored(list(frame.tail)):
        pen.shadow(points, height, raised=True)
    pen.shadow(_fuselage(frame.body), height, raised=True)


def _hull(blunt: float, stern: float) -> np.ndarray:
    right = [(1.0, 0.0), (0.9, 0.32), (0.72, 0.68), (blunt, 1.0), (-0.7, 1.0), (-1.0, stern)]
    return np.array(right + [(x, -y) for x, y in reversed(right[1:])])


def _draw_ship(pen: Pen, rng: Random) -> None:
    elongation = pen.length / pen.width
    hull = _hull(rng.uniform(0.3, 0.5), rng.uniform(0.75, 0.95))
    # Short hulls are boats, long ones are freighters.
    if elongation < 3.6:
        _draw_boat(pen, rng, hull)
        return

    side = rng.choice(((52, 54, 62), (118, 44, 40), (40, 62, 100), (70, 74, 78)))
    deck = shade(
        rng.choice(((168, 98, 78), (128, 138, 132), (180, 172, 152))), rng.uniform(0.9, 1.1)
    )
    pen.fill(hull, side)
    pen.fill(hull * (0.965, 0.82), deck)

    load = rng.random()
    holds = max(2, int(elongation * 0.9))
    for k in range(holds):
        x0 = -0.5 + 1.15 * k / holds
        x1 = x0 + 1.15 / holds * 0.82
        if load < 0.45:  # a container ship
            for row in range(3):
                y0 = -0.64 + 0.43 * row
                color = shade(rng.choice(_CARGO_COLORS), rng.uniform(0.75, 1.0))
                pen.rect(x0, x1, y0, y0 + 0.4, color)
        elif load < 0.75:  # a bulk carrier: hatch covers
            pen.rect(x0, x1, -0.5, 0.5, shade(deck, 0.68))
            pen.rect(x0 + 0.02, x1 - 0.02, -0.42, 0.3, shade(deck, 0.86))

    if load >= 0.75:  # a tanker: pipes along the deck
        pen.rect(-0.55, 0.7, -0.07, 0.07, shade(deck, 1.35))
        pen.rect(-0.02, 0.06, -0.6, 0.6, shade(deck, 1.3))
    # The bridge of the ship stands at the stern.
    pen.rect(-0.9, -0.6, -0.72, 0.72, (150, 152, 154))
    pen.rect(-0.88, -0.62, -0.66, 0.5, (240, 240, 238))
    pen.rect(-0.66, -0.6, -0.72, 0.72, (70, 78, 88))
    pen.ellipse(-0.78, 0, 0.05, 0.2, (190, 60, 50))


def _draw_boat(pen: Pen, rng: Random, hull: np.ndarray) -> None:
    color = shade(rng.choice(((244, 244, 240), (238, 238, 236), (232, 226, 210))), 1.0)
    rim = rng.choice(((210, 212, 214), (60, 80, 124), (150, 60, 54), (214, 214, 212)))
    pen.fill(hull, rim)
    pen.fill(hull * (0.95, 0.84), color)

    if rng.random() < 0.3:  # a sailing boat: mast and boom
        pen.fill(hull * (0.7, 0.5), (176, 140, 100))
        pen.rect(-0.6, 0.75, -0.08, 0.08, (235, 235, 235))
        pen.ellipse(0.12, 0, 0.07, 0.16, (90, 90, 92))
        return

    pen.fill([(0.42, -0.4), (0.42, 0.4), (0.18, 0.62), (0.18, -0.62)], _GLASS)

    pen.rect(-0.28, 0.18, -0.58, 0.58, shade(color, 0.93))
    pen.rect(
        -0.9, -0.34, -0.62, 0.62, rng.choice(((150, 112, 78), (92, 108, 132), (160, 160, 158)))
    )
    pen.rect(-0.9, -0.76, -0.5, 0.5, (226, 222, 212))


def _draw_storage_tank(pen: Pen, rng: Random) -> None:
    base: Color = rng.choice(((234, 234, 230), (216, 218, 218), (206, 200, 184), (176, 150, 128)))
    base = shade(base, rng.uniform(0.9, 1.04))

    lx, ly = pen.light
    pen.fill(CIRCLE, shade(base, 0.66))
    pen.fill(CIRCLE * 0.93, shade(base, 1.03))

    if rng.random() < 0.55:  # a floating roof: its rim shades a crescent of the sunken roof
        pen.fill(CIRCLE * 0.84, shade(base, 0.45))
        pen.fill(CIRCLE * 0.74 - (0.12 * lx, 0.12 * ly), shade(base, 0.88))
        pen.fill(CIRCLE * 0.12, shade(base, 0.6))
    else:  # a cone: bright towards the light, dark away from it
        angle = math.atan2(ly, lx)
        for k in range(12):
            a0 = angle + (k - 6) * math.pi / 6
            a1 = a0 + math.pi / 6 + 0.03
            gain = 0.86 + 0.2 * math.cos((a0 + a1) / 2 - angle)
            # Each wedge a little wider than its share, so that no gap shows between them.
            wedge = [(0, 0), (0.88 * math.cos(a0), 0.88 * math.sin(a0)),
                     (0.88 * math.cos(a1), 0.88 * math.sin(a1))]  # fmt: skip
            pen.fill(wedge, shade(base, gain))
        pen.fill(CIRCLE * 0.1, (96, 98, 100))

    turn = rng.uniform(0, 2 * math.pi)
    for offset in (0.0, 0.12):  # the stairs on the wall
        x, y = 0.96 * math.cos(turn + offset), 0.96 * math.sin(turn + offset)
        pen.ellipse(0.96 * x, 0.96 * y, 0.05, 0.05, (80, 80, 80))


def _draw_harbor(pen: Pen, rng: Random) -> None:
    deck = shade(
        rng.choice(((188, 182, 168), (172, 152, 122), (196, 194, 188))), rng.uniform(0.92, 1.06)
    )
    ratio = pen.width / pen.length
    # Details keep their size in pixels, so a longer harbour has more of them.
    fingers = max(3, int(0.62 / ratio))
    step = 2.0 / fingers
    stub = min(0.42 * ratio, 0.3 * step)

    # Short finger jetties on both sides reach the edge of the box, the walkway is the middle.
    for k in range(fingers):
        x0 = -1 + (2 - stub) * k / (fingers - 1)
        pen.rect(x0, x0 + stub, -1, 1, shade(deck, 0.9))
    pen.rect(-1, 1, -0.62, 0.62, shade(deck, 0.62))
    pen.rect(-1 + 0.06 * ratio, 1 - 0.06 * ratio, -0.52, 0.52, deck)

    planks = max(6, int(1.6 / ratio))
    for k in range(1, planks):
        x = -1 + 2 * k / planks
        pen.rect(x - 0.03 * ratio, x + 0.03 * ratio, -0.5, 0.5, shade(deck, 0.8))

    for k in range(fingers + 1):
        x = -0.95 + 1.9 * k / fingers
        for y in (-0.46, 0.46):
            pen.ellipse(x, y, 0.1 * ratio, 0.1, (70, 66, 60))


def _draw_bridge(pen: Pen, rng: Random) -> None:
    concrete = shade((186, 182, 174), rng.uniform(0.9, 1.06))
    road = shade((104, 104, 106), rng.uniform(0.9, 1.1))
    ratio = pen.width / pen.length

    pen.fill(_RECT, concrete)
    pen.rect(-1, 1, -0.86, -0.7, shade(concrete, 0.6))
    pen.rect(-1, 1, 0.7, 0.86, shade(concrete, 0.6))
    pen.rect(-1, 1, -0.7, 0.7, road)

    dashes = max(4, int(0.75 / ratio))
    for k in range(dashes):
        x = -1 + 2 * (k + 0.25) / dashes
        pen.rect(x, x + 1.0 / dashes, -0.05, 0.05, (228, 222, 190))
    for x in (-1 + 0.08 * ratio, -0.34, 0.34, 1 - 0.08 * ratio):  # expansion joints
        pen.rect(x - 0.05 * ratio, x + 0.05 * ratio, -0.7, 0.7, shade(road, 0.6))

    if rng.random() < 0.45:  # a truss: cross beams above the road
        beams = max(4, int(0.9 / ratio))
        for k in range(beams + 1):
            x = -0.96 + 1.92 * k / beams
            pen.rect(x - 0.05 * ratio, x + 0.05 * ratio, -0.95, 0.95, shade(concrete, 0.9))


def _shadow_of(outline: np.ndarray) -> Callable[[Pen, int, float], None]:
    def cast(pen: Pen, style: int, height: float) -> None:
        pen.shadow(outline, height)

    return cast


@dataclass(frozen=True)
class ObjectClass:
    """Drawing and size of a class.

    Args:
        length: (low, high) limits of the extent along the heading, scene units, drawn
            log-uniformly.
        aspect: width / length of the shortest and of the longest; others lie between.
        height: height above the ground as a share of the width; for the shadow.
        layer: 0 for structures that carry others, 1 for the rest.
        draw: draws the object with a pen and the object's own random numbers.
        shadow: casts the shadow, from the seed of the looks and the height in pixels.
    """

    length: tuple[float, float]
    aspect: tuple[float, float]
    height: float
    layer: int
    draw: Callable[[Pen, Random], None]
    shadow: Callable[[Pen, int, float], None]


OBJECT_CLASSES: dict[str, ObjectClass] = {
    "plane": ObjectClass((32, 70), (0.97, 0.97), 0.11, 1, _draw_plane, _shadow_plane),
    "ship": ObjectClass((20, 90), (0.36, 0.2), 0.35, 1, _draw_ship, _shadow_of(_hull(0.4, 0.9))),
    "large-vehicle": ObjectClass(
        (27, 46), (0.3, 0.2), 0.65, 1, _draw_large_vehicle, _shadow_of(_RECT)
    ),
    "small-vehicle": ObjectClass(
        (13, 16.5), (0.48, 0.48), 0.42, 1, _draw_small_vehicle, _shadow_of(_CAR)
    ),
    "storage-tank": ObjectClass(
        (18, 46), (1.0, 1.0), 0.32, 1, _draw_storage_tank, _shadow_of(CIRCLE)
    ),
    "harbor": ObjectClass((56, 120), (0.22, 0.15), 0.12, 0, _draw_harbor, _shadow_of(_RECT)),
    "bridge": ObjectClass((50, 130), (0.26, 0.14), 0.45, 0, _draw_bridge, _shadow_of(_RECT)),
}
