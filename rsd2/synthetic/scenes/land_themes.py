"""Themes on land: airport, parking lots, streets, tank farms, and scenes without any object.

Every theme fills a fresh :class:`Site`; coordinates are the site's scene units (u, v), which reach
from -half_u to half_u and from -half_v to half_v over the whole image.
"""

from __future__ import annotations

import math

import numpy as np

from rsd2.synthetic.textures import PAVED

from .clutter import (
    add_building,
    add_containers,
    add_marking,
    add_pool,
    add_roundabout,
    scatter_trees,
)
from .parts import (
    YELLOW,
    anywhere,
    build_road,
    clutter_water,
    drive,
    lay,
    parking_block,
    plant_trees,
    quad,
    water_kind,
)
from .site import Site


def airport(site: Site, clutter: float) -> None:
    """Lay out an apron: planes at their stands, a taxiway, a terminal and service vehicles.

    Args:
        site: site to fill; its ground is grass.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    edge = rng.uniform(-0.8, -0.5) * hv
    lay(site, quad(-hu - 5, hu + 5, edge, hv + 5), "concrete")
    # Joints of the slabs.
    for u in np.arange(-hu, hu, 26.0):
        site.mark_line((u, edge), (u, hv), 0.4, (140, 138, 132))
    for v in np.arange(edge, hv, 26.0):
        site.mark_line((-hu, v), (hu, v), 0.4, (140, 138, 132))

    # The terminal: a row of flat buildings at the edge of the apron.
    if rng.uniform() < 0.6:
        u = -hu + rng.uniform(0, 40)
        while u < hu:
            length = rng.uniform(50, 100)
            add_building(site, u + length / 2, edge + 2, (length, rng.uniform(18, 30)), 0.0, True)
            u += length + rng.uniform(14, 40)

    # In small scenes planes must leave room for each other, or none would fit.
    largest = max(44.0, 0.36 * site.side)
    typical = site.sample_size("plane", high=largest)
    v, row = edge + 20 + typical[0] / 2, 0
    while v < hv + typical[0] / 2:
        # Rows face each other in turn; a row may stand aslant.
        heading = -math.pi / 2 if row % 2 == 0 else math.pi / 2
        slant = rng.choice([0.0, 0.0, 0.5, -0.5])

        u = -hu + rng.uniform(0, 30)
        while u < hu:
            size = typical if rng.uniform() < 0.7 else site.sample_size("plane", high=largest)
            if rng.uniform() < 0.88:
                jitter = rng.normal(0, 0.05)
                site.mark_line((u, v - size[0]), (u, v + size[0]), 0.6, YELLOW)
                site.place("plane", u, v, heading + slant + jitter, size)
            u += size[1] * 1.12 + rng.uniform(2, 14)

        # Service vehicles drive between the rows, along a taxiway with a yellow line.
        v += typical[0] * 1.1
        for u in np.arange(-hu, hu, 48.0):
            kind = "large-vehicle" if rng.uniform() < 0.4 else "small-vehicle"
            if rng.uniform() < 0.35:
                turn = rng.uniform(-math.pi, math.pi)
                size = site.sample_size(kind, high=32)
                site.place(kind, u + rng.uniform(0, 40), v - rng.uniform(-4, 4), turn, size, PAVED)

        v += rng.uniform(8, 18)
        site.mark_line((-hu, v), (hu, v), 1.0, YELLOW)
        v += rng.uniform(8, 18) + typical[0] / 2
        row += 1

    for _ in range(rng.poisson(1.5 * clutter)):
        add_marking(site, *anywhere(site))
    plant_trees(site, 0.4 * clutter, (-hu, hu, -hv, edge - 15))


def parking(site: Site, clutter: float) -> None:
    """Lay out a shop or a depot with large parking lots, a street and trees.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    street = rng.uniform(0.45, 0.8) * hv
    build_road(site, street, 22)

    # Two lots below the street, of which one may be for lorries.
    split = rng.uniform(-0.25, 0.25) * hu
    low, high = -0.75 * hv, street - 16
    lots = [(-0.85 * hu, split - 6, low, high), (split + 6, 0.85 * hu, low, high)]
    if rng.uniform() < 0.75:
        parking_block(site, lots.pop(), True, site.max_objects // 3)
    for lot in lots:
        parking_block(site, lot, False, min(site.room // len(lots), site.max_objects // 2))

    drive(site, street, 22, 0.8, 0.25)

    for u in np.arange(-hu, hu, 62.0):
        size = (rng.uniform(34, 58), rng.uniform(20, 34))
        add_building(site, u, low - rng.uniform(10, 30), size, 0.0, True)
        if rng.uniform() < 0.5 * clutter:
            add_containers(site, u, high - rng.uniform(10, 60), math.pi / 2, 1, 2)

    for _ in range(rng.poisson(0.8 * clutter)):
        add_marking(site, *anywhere(site))
    plant_trees(site, 0.8 * clutter)


def streets(site: Site, clutter: float) -> None:
    """Lay out houses with gardens and pools along streets with driving and parked vehicles.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    width = rng.uniform(20, 26)
    first = -hv + rng.uniform(20, 60)
    rows = np.arange(first, hv, rng.uniform(88, 110))
    trucks = rng.uniform(0.15, 0.5)

    # All streets come first, so that no house stands on a later one.
    for v in rows:
        build_road(site, v, width, bool(rng.uniform() < 0.8))
        if rng.uniform() < 0.4 * clutter:
            add_roundabout(site, rng.uniform(-0.6, 0.6) * hu, v, width)
    for v in rows:
        drive(site, v, width, rng.uniform(0.8, 1.6), trucks)
        for side in (-1, 1):
            u = -hu + rng.uniform(0, 20)
            while u < hu:
                # A plot: the house, its entry with a car, perhaps a pool behind it.
                size = (rng.uniform(22, 34), rng.uniform(15, 21))
                row = v + side * (width / 2 + 14 + size[1] / 2)
                add_building(site, u, row, size, rng.choice([0.0, 0.0, math.pi / 2]), False)

                entry = u + size[0] / 2 + 8
                near = v + side * (width / 2 + 3)
                lay(site, quad(entry - 5, entry + 5, *sorted((near, near + side * 26))), "concrete")
                if rng.uniform() < 0.5:
                    turn = side * math.pi / 2 * rng.choice([-1, 1])
                    car = site.sample_size("small-vehicle")
                    site.place("small-vehicle", entry, near + side * 14, turn, car)

                if rng.uniform() < 0.3 * clutter:
                    add_pool(site, u, row + side * 22, rng.choice([0.0, math.pi / 2]))
                u += size[0] + 24 + rng.uniform(0, 16)
    plant_trees(site, 1.3 * clutter)


def tank_farm(site: Site, clutter: float) -> None:
    """Lay out groups of storage tanks inside bunds, pipes, a road with lorries, round trees.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    street = rng.uniform(-0.6, 0.6) * hv
    lay(site, quad(-hu * 0.9, hu * 0.9, -hv, hv), "gravel")
    build_road(site, street, 20, False)
    drive(site, street, 20, 1.2, 0.6)

    # Rows of tanks on both sides, from the street outwards.
    for direction in (-1, 1):
        v = street + direction * 16
        while abs(v) < hv:
            # All tanks of a row have one size, as in a real farm.
            size = site.sample_size("storage-tank")
            pitch = size[0] * rng.uniform(1.25, 1.5)
            row = v + direction * pitch / 2
            site.mark_line((-hu, v), (hu, v), 1.2, (188, 184, 172))

            u = -hu + rng.uniform(0, pitch)
            site.mark_line((-hu, row), (hu, row), 1.0, (196, 196, 192))

            while u < hu:
                if rng.uniform() < 0.72:
                    site.place("storage-tank", u, row, 0.0, size)
                elif rng.uniform() < 0.35 * clutter:
                    scatter_trees(site, 1, (u - 2, u + 2, row - 2, row + 2))
                elif rng.uniform() < 0.3:
                    truck = site.sample_size("large-vehicle", high=size[0] + 20)
                    site.place("large-vehicle", u, row, rng.choice([0.0, math.pi]), truck)
                u += pitch

            v += direction * (pitch + rng.uniform(4, 12))

    for _ in range(rng.poisson(1.2 * clutter)):
        add_containers(site, *anywhere(site), rng.choice([0.0, math.pi / 2]), 2, 1)
    plant_trees(site, 0.35 * clutter)


def nothing(site: Site, clutter: float) -> None:
    """Lay out open land or open sea: no object, only things that resemble one.

    Args:
        site: site to fill.
        clutter: amount of clutter, 1 is usual.
    """
    rng, hu, hv = site.rng, site.half_u, site.half_v
    kind = rng.integers(3)
    if kind == 0:
        lay(site, quad(-hu - 5, hu + 5, -hv - 5, hv + 5), water_kind(site))
        clutter_water(site, 2.0 * clutter)
        return

    for v in np.arange(-hv, hv, rng.uniform(50, 90)):
        field = str(rng.choice(["dry_field", "meadow", "soil", "grass", "forest_floor"]))
        stripe = rng.uniform(5, 9) if rng.uniform() < 0.6 else 0.0
        lay(site, quad(-hu - 5, hu + 5, v, v + 100), field, stripe)

    if kind == 1:
        build_road(site, rng.uniform(-0.5, 0.5) * hv, 16)
    for _ in range(rng.poisson(1.5 * clutter)):
        size = (rng.uniform(20, 34), rng.uniform(10, 20))
        add_building(site, *anywhere(site), size, rng.uniform(0, math.pi), bool(rng.integers(2)))
    plant_trees(site, rng.uniform(0.3, 2.5) * clutter)
