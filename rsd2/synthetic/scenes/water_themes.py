"""Themes with water: marinas, freight ports, rivers with bridges.

Every theme fills a fresh :class:`Site`; coordinates are the site's scene units (u, v), which reach
from -half_u to half_u and from -half_v to half_v over the whole image.
"""

from __future__ import annotations

import math

import numpy as np

from rsd2.synthetic.textures import LAND, PAVED, WATER

from .clutter import add_building, add_containers
from .parts import (
    WHITE,
    anywhere,
    clutter_water,
    drive,
    lay,
    parking_block,
    plant_trees,
    quad,
    water_kind,
    wavy_edge,
)
from .site import Site


def marina(site: Site, clutter: float) -> None:
    """Lay out piers with boats on both sides, and a shore with houses and parked cars.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    shore = rng.uniform(-0.8, -0.35) * hv
    edge = wavy_edge(site, shore, rng.uniform(0.5, 3))
    corners = [(hu + 10, hv + 10), (-hu - 10, hv + 10)]
    # The sand reaches beyond the water, which then covers all but a strip of beach.
    lay(site, np.concatenate([edge - (0, 6), corners]), "sand")
    lay(site, np.concatenate([edge, corners]), water_kind(site))

    # Piers reach from the shore into the water; boats of about one size moor at them.
    boat = site.sample_size("ship", high=34)
    u = -0.85 * hu + rng.uniform(0, 30)
    while u < hu:
        length, width = site.sample_size("harbor", high=max(60.0, 0.9 * (hv - shore)))
        v = shore + 7 + length / 2
        # Without its pier a row of boats would float in nothing.
        if site.place("harbor", u, v, math.pi / 2, (length, width), WATER):
            _moor(site, u, v - length / 2, length, width, boat)
        u += width + 2 * boat[0] + rng.uniform(8, 26)

    for _ in range(int(hu * hv / 5000) + 1):
        size = site.sample_size("ship", high=60)
        _sail(site, *anywhere(site), rng.uniform(-math.pi, math.pi), size)

    if shore + hv > 50:
        trucks = bool(rng.uniform() < 0.25)
        u0 = rng.uniform(-hu, 0)
        lot = (u0, u0 + rng.uniform(70, 130), max(-hv, shore - 130), shore - 10)
        parking_block(site, lot, trucks, site.room // 2)

    for u in np.arange(-hu, hu, 40.0):
        size = (rng.uniform(18, 30), rng.uniform(12, 18))
        add_building(
            site, u, shore - rng.uniform(18, 40), size, rng.choice([0.0, math.pi / 2]), False
        )

    clutter_water(site, 0.7 * clutter)
    plant_trees(site, 0.5 * clutter, (-hu, hu, -hv, shore - 8))


def _moor(
    site: Site, u: float, v0: float, length: float, width: float, boat: tuple[float, float]
) -> None:
    """Moor boats at right angles to the pier that starts at (u, v0) and runs along v."""
    taken = site.rng.uniform(0.4, 0.9)
    for side in (-1, 1):
        v = v0 + boat[1] * 0.8
        # Most boats of one side point the same way.
        bow_out = site.rng.uniform() < 0.7
        while v < v0 + length - boat[1] * 0.4:
            size = boat if site.rng.uniform() < 0.6 else site.sample_size("ship", high=boat[0])
            if site.rng.uniform() < taken:
                heading = 0.0 if (side > 0) == bow_out else math.pi
                offset = side * (width / 2 + 2.2 + size[0] / 2)
                skew = site.rng.normal(0, 0.03)
                site.place("ship", u + offset, v, heading + skew, size, WATER)
            v += boat[1] * 1.22 + 1.5


def _sail(site: Site, u: float, v: float, heading: float, size: tuple[float, float]) -> None:
    """Place a ship on open water, often with its wake behind it."""
    if not site.place("ship", u, v, heading, size, WATER) or site.rng.uniform() < 0.4:
        return

    placed = site.objects[-1]
    along = np.array([math.cos(placed.heading), math.sin(placed.heading)])
    half = np.array([-along[1], along[0]]) * (0.3 * placed.width)
    # The wake widens behind the stern, with a bright core.
    start = placed.center - along * (0.5 * placed.length)
    end = placed.center - along * (site.rng.uniform(1.0, 1.8) * placed.length)
    wake = np.stack([start - half, start + half, end + 1.6 * half, end - 1.6 * half])
    core = np.stack([start - 0.5 * half, start + 0.5 * half, end])

    if site.is_free(wake - 1.5 * along, WATER):
        site.occupy(wake)
        site.add_clutter(-1, lambda canvas: canvas.polygon(wake, (112, 142, 152)))
        site.add_clutter(-1, lambda canvas: canvas.polygon(core, (178, 196, 200)))


def port(site: Site, clutter: float) -> None:
    """Lay out a freight port: long quays with large ships, containers and lorries on land.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    shore = rng.uniform(-0.4, 0.1) * hv
    lay(site, quad(-hu - 5, hu + 5, -hv - 5, shore), "concrete")
    lay(site, quad(-hu - 5, hu + 5, shore, hv + 5), water_kind(site))

    u = -0.9 * hu + rng.uniform(0, 30)
    while u < hu:
        length, width = site.sample_size("harbor", low=60, high=max(70.0, 0.5 * site.side))
        v = shore + width / 2 + 1.5
        if site.place("harbor", u + length / 2, v, 0.0, (length, width), WATER):
            # A ship lies at its quay, not beyond either end of it.
            ship = site.sample_size("ship", low=40, high=length)
            heading = rng.choice([0.0, math.pi])
            beside = v + width / 2 + ship[1] / 2 + 2.0
            site.place("ship", u + length / 2 + rng.uniform(-6, 6), beside, heading, ship, WATER)
        u += length + rng.uniform(8, 30)

    for _ in range(int(hu * hv / 4500) + 1):
        size = site.sample_size("ship")
        _sail(site, *anywhere(site), rng.choice([0.0, math.pi]) + rng.normal(0, 0.3), size)

    # The freight yard: a lane along the quay, then rows of containers or lorries.
    lane = shore - 18
    drive(site, lane, 14, 0.8, 0.75)
    v = lane - 30
    while v > -hv:
        for u in np.arange(-hu + 20, hu, 74.0):
            if rng.uniform() < 0.7 * min(clutter, 1.4):
                add_containers(site, u, v, 0.0, int(rng.integers(2, 5)), int(rng.integers(1, 4)))
            else:
                size = site.sample_size("large-vehicle")
                site.place("large-vehicle", u, v, rng.choice([0.0, math.pi]), size)
        v -= 46

    clutter_water(site, 0.5 * clutter)


def river(site: Site, clutter: float) -> None:
    """Lay out a river with bridges and ships, and fields and houses beside it.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    breadth = rng.uniform(42, np.clip(0.5 * site.side, 60, 110))
    middle = rng.uniform(-0.3, 0.3) * hv
    upper = wavy_edge(site, middle - breadth / 2, rng.uniform(1, 4))
    # Both banks have the same bends, so the breadth is the same everywhere.
    lower = upper + (0, breadth)

    # Fields beside the river, laid before it so that it cuts them.
    for sign in (-1, 1):
        for _ in range(2):
            u, v = rng.uniform(-hu, hu), middle + sign * (breadth / 2 + rng.uniform(40, 90))
            field = str(rng.choice(["dry_field", "meadow", "soil", "grass"]))
            stripe = rng.uniform(5, 9) if rng.uniform() < 0.7 else 0.0
            lay(site, quad(u - 60, u + 60, v - 35, v + 35), field, stripe)

    lay(site, np.concatenate([upper - (0, 5), (lower + (0, 5))[::-1]]), "sand")
    lay(site, np.concatenate([upper, lower[::-1]]), water_kind(site))

    u = -0.75 * hu + rng.uniform(0, 60)
    while u < 0.95 * hu:
        # Bridges before ships, because a bridge needs a place of its own.
        _crossing(site, u, upper, breadth)
        u += rng.uniform(55, max(120.0, 0.4 * site.side))

    for _ in range(int(hu * breadth / 1100) + 1):
        heading = rng.choice([0.0, math.pi]) + rng.normal(0, 0.12)
        v = middle + rng.uniform(-0.38, 0.38) * breadth
        _sail(site, rng.uniform(-hu, hu), v, heading, site.sample_size("ship", high=70))

    for _ in range(int(hu * hv / 2200)):
        size = (rng.uniform(20, 32), rng.uniform(13, 19))
        add_building(site, *anywhere(site), size, rng.uniform(0, math.pi), False)

    clutter_water(site, 0.4 * clutter)
    plant_trees(site, 0.9 * clutter)


def _crossing(site: Site, u: float, upper: np.ndarray, breadth: float) -> None:
    """Build a road along v at height u with a bridge where it meets the river."""
    rng = site.rng
    v0 = float(np.interp(u, upper[:, 0], upper[:, 1])) - 5
    length = breadth + 10
    width = rng.uniform(15, 20)
    far = site.half_v + 10

    sides = (u - width / 2 + 1, u + width / 2 - 1)
    for start, end in ((-far, v0), (v0 + length, far)):
        lay(site, quad(*sides, start, end), "asphalt")
        for v in np.arange(start, end, 14.0):
            site.mark_line((u, v), (u, v + 6), 0.7, WHITE)

    built = site.place(
        "bridge", u, v0 + length / 2, math.pi / 2, (length, width), zones=LAND | WATER | PAVED
    )

    for lane, heading in ((-0.24, math.pi / 2), (0.24, -math.pi / 2)):
        v = -site.half_v + rng.exponential(30)
        while v < site.half_v:
            truck = rng.uniform() < 0.3
            name = "large-vehicle" if truck else "small-vehicle"
            size = site.sample_size(name)
            v += size[0] / 2

            # Off the bridge, on it, or half on its end, where nothing is placed.
            near = v0 - size[0] / 2 - 2 < v < v0 + length + size[0] / 2 + 2
            aboard = v0 + size[0] / 2 < v < v0 + length - size[0] / 2
            # A lorry would cover too much of the bridge: the boxes must stay distinct.
            small = not truck and size[0] * size[1] < 0.085 * length * width
            if not near:
                site.place(name, u + lane * width, v, heading, size)
            elif built and aboard and small and rng.uniform() < 0.5:
                site.place(name, u + lane * width, v, heading, size, carried=True)
            v += size[0] / 2 + 8 + rng.exponential(48)
