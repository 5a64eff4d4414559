"""Parts that several themes share: roads with traffic, parking lots, shores, water, trees.

Coordinates are the scene units (u, v) of a :class:`Site`.
"""

from __future__ import annotations

import math

import numpy as np

from rsd2.synthetic.canvas import Color
from rsd2.synthetic.textures import PAVED

from .clutter import add_rock, add_whitecap, scatter_trees
from .site import Site

WHITE: Color = (214, 214, 206)
YELLOW: Color = (206, 176, 74)

Area = tuple[float, float, float, float]  # (u0, u1, v0, v1)


def quad(u0: float, u1: float, v0: float, v1: float) -> np.ndarray:
    """Return the corners of an area.

    Args:
        u0: left.
        u1: right.
        v0: top.
        v1: bottom.

    Returns:
        (4, 2).
    """
    return np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])


def lay(site: Site, points: np.ndarray, material: str, stripe: float = 0.0) -> None:
    """Cover a piece of ground.

    Args:
        site: site to work on.
        points: (P, 2) scene units.
        material: a key of MATERIALS.
        stripe: distance of the rows of a field, scene units; 0 for none.
    """
    site.ground.fill(site.to_image(points), material, stripe * site.scale)


def anywhere(site: Site) -> tuple[float, float]:
    """Return a random point.

    Args:
        site: site that the point lies on.

    Returns:
        (u, v), scene units; it may lie just outside the image.
    """
    return (
        float(site.rng.uniform(-site.half_u, site.half_u)),
        float(site.rng.uniform(-site.half_v, site.half_v)),
    )


def wavy_edge(site: Site, v: float, roughness: float) -> np.ndarray:
    """Return a line along u across the whole scene: a shore or a bank.

    Args:
        site: site to cross.
        v: mean height of the line, scene units.
        roughness: amplitude of its waves, scene units.

    Returns:
        (P, 2) scene units, from left to right.
    """
    u = np.linspace(-site.half_u - 10, site.half_u + 10, 40)
    phases = site.rng.uniform(0, 2 * math.pi, 3)
    # Three waves of about a third of each other's length look like a natural shore.
    wiggle = np.sin(u / 60 + phases[0]) + 0.5 * np.sin(u / 23 + phases[1])
    wiggle += 0.25 * np.sin(u / 9 + phases[2])
    return np.stack([u, v + roughness * wiggle], axis=1)


def water_kind(site: Site) -> str:
    """Choose a kind of water.

    Args:
        site: site whose random numbers are used.

    Returns:
        A key of MATERIALS.
    """
    return str(site.rng.choice(["sea", "sea", "green_water", "muddy_water"]))


def clutter_water(site: Site, rate: float) -> None:
    """Add rocks and breaking waves to the water, which resemble boats.

    Args:
        site: site with water.
        rate: amount, 1 is usual.
    """
    area, rough = 4 * site.half_u * site.half_v, site.rng.uniform(0, 1)
    for _ in range(int(rate * rough * area / 1500)):
        add_whitecap(site, *anywhere(site))

    for _ in range(site.rng.poisson(rate * area / 12000)):
        add_rock(site, *anywhere(site), site.rng.uniform(2.5, 8))


def plant_trees(site: Site, rate: float, area: Area | None = None) -> None:
    """Plant trees in groups.

    Args:
        site: site to plant on.
        rate: amount, 1 is usual.
        area: area to plant in; the whole scene if None.
    """
    u0, u1, v0, v1 = area or (-site.half_u, site.half_u, -site.half_v, site.half_v)
    if u1 > u0 and v1 > v0:
        scatter_trees(site, int(rate * (u1 - u0) * (v1 - v0) / 2500), (u0, u1, v0, v1))


def parking_block(site: Site, area: Area, trucks: bool, max_objects: int) -> None:
    """Lay out a parking lot: rows of painted bays, most of them taken.

    Args:
        site: site to build on.
        area: area that the lot may cover.
        trucks: bays for large vehicles instead of cars.
        max_objects: the lot has about as many bays; it covers less of the area if it must.
    """
    (u0, u1, v0, v1), rng = area, site.rng
    name = "large-vehicle" if trucks else "small-vehicle"
    depth, pitch, aisle = (50.0, 13.5, 30.0) if trucks else (18.5, 10.0, 20.0)

    # Rows stand back to back in pairs, with an aisle after each pair.
    tops, v = [], v0 + 5.0
    while v + depth < v1:
        tops.append(v)
        v += depth + (1.0 if len(tops) % 2 == 0 else aisle)

    taken = rng.uniform(0.5, 0.97)
    columns = int((u1 - u0 - 8) // pitch)
    if not tops or columns < 2 or max_objects < 1:
        return

    # Shrink the lot, first across, then along, to about the wanted number of bays.
    columns = min(columns, max(3, round(max_objects / taken / len(tops))))
    tops = tops[: max(1, round(max_objects / taken / columns))]

    width = columns * pitch + 8
    left = rng.uniform(u0, u1 - width)
    surface = str(rng.choice(["asphalt", "old_asphalt"]))
    lay(site, quad(left, left + width, v0, tops[-1] + depth + aisle * 0.6), surface)

    same_way, typical = rng.uniform() < 0.6, site.sample_size(name)
    for row, v in enumerate(tops):
        heading = math.pi / 2 if row % 2 else -math.pi / 2
        for k in range(columns):
            u = left + 4 + (k + 0.5) * pitch
            # Bays out of view are skipped before they take random numbers.
            if not site.in_view((u, v + depth / 2), depth):
                continue
            site.mark_line((u - pitch / 2, v), (u - pitch / 2, v + depth), 0.7, WHITE)
            if rng.uniform() > taken:
                continue

            size = typical if trucks and rng.uniform() < 0.7 else site.sample_size(name)
            turn = heading if same_way or rng.uniform() < 0.7 else heading + math.pi
            shift, skew = rng.uniform(-1.2, 1.2), rng.normal(0, 0.03)
            site.place(name, u + rng.uniform(-0.5, 0.5), v + depth / 2 + shift, turn + skew, size)


def build_road(site: Site, v: float, width: float, lanes_marked: bool = True) -> None:
    """Build a straight road along u across the whole scene.

    Args:
        site: site to build on.
        v: middle of the road, scene units.
        width: scene units.
        lanes_marked: paint dashes in the middle.
    """
    half = site.half_u + 10
    lay(site, quad(-half, half, v - width / 2 - 2.5, v + width / 2 + 2.5), "old_asphalt")
    lay(site, quad(-half, half, v - width / 2, v + width / 2), "asphalt")
    site.mark_line((-half, v - width / 2 + 1), (half, v - width / 2 + 1), 0.6, WHITE)
    site.mark_line((-half, v + width / 2 - 1), (half, v + width / 2 - 1), 0.6, WHITE)

    if lanes_marked:
        for u in np.arange(-half, half, 14.0):
            site.mark_line((u, v), (u + 6, v), 0.7, WHITE)


def drive(site: Site, v: float, width: float, rate: float, trucks: float) -> None:
    """Let vehicles drive along a road, on the right-hand side.

    Args:
        site: site with a road along u.
        v: middle of the road, scene units.
        width: width of the road, scene units.
        rate: density of the traffic, 1 is usual.
        trucks: share of large vehicles, 0 to 1.
    """
    for lane, heading in ((0.25, 0.0), (-0.25, math.pi)):
        u = -site.half_u + site.rng.exponential(30)
        while u < site.half_u:
            name = "large-vehicle" if site.rng.uniform() < trucks else "small-vehicle"
            size = site.sample_size(name)
            u += size[0] / 2
            skew = site.rng.normal(0, 0.02)
            site.place(name, u, v + lane * width, heading + skew, size, PAVED)
            u += size[0] / 2 + 6 + site.rng.exponential(40 / rate)
