"""Vehicles of a few pixels: how they look, and their drawing at sub-pixel positions.

Vehicles that move and vehicles that stand come from this one renderer, so that a single frame does
not tell them apart. Shapes: N vehicles, H and W image height and width, K side of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtr

from .config import LARGE_SHARE, LARGE_VEHICLES

VISIBLE_RIM = 0.5
"""The blur shows a vehicle this much larger at each side, pixels; labels include it."""

_SPREAD = 0.14  # headings add theirs to the labels: together about 0.2
_MEAN_GROWTH = 1.17  # of an upright box around a vehicle of any heading, square root of areas
_PIXEL_VARIANCE = 1 / 12


@dataclass
class Vehicles:
    """Looks of N vehicles.

    Attributes:
        length: (N,) pixels.
        width: (N,) pixels.
        contrast: (N,) grey levels above (or below) the ground around.
        tint: (N, 3) RGB added to the contrast, grey levels.
        glass: (N,) place of the windscreen, a share of half the length, -1 to 1.
    """

    length: np.ndarray
    width: np.ndarray
    contrast: np.ndarray
    tint: np.ndarray
    glass: np.ndarray

    def take(self, index: np.ndarray) -> Vehicles:
        """Return some of the vehicles.

        Args:
            index: (M,) int or (N,) bool.

        Returns:
            M vehicles.
        """
        return Vehicles(*(getattr(self, item.name)[index] for item in fields(self)))

    def extents(self, heading: np.ndarray) -> np.ndarray:
        """Return the sides of the upright boxes around the visible vehicles, blur included.

        Args:
            heading: (N,) radians.

        Returns:
            (N, 2) width and height, pixels.
        """
        cos, sin = np.abs(np.cos(heading)), np.abs(np.sin(heading))
        across = self.length * cos + self.width * sin
        down = self.length * sin + self.width * cos
        return np.stack([across, down], axis=1) + 2 * VISIBLE_RIM


def draw_looks(
    rng: np.random.Generator,
    number: int,
    base_size: float,
    dark_fraction: float,
    dim_fraction: float,
) -> Vehicles:
    """Draw the looks of the vehicles of one scene.

    Args:
        rng: source of randomness.
        number: N >= 0.
        base_size: median square root of the area of their labels, pixels.
        dark_fraction: share of vehicles darker than the ground.
        dim_fraction: share of vehicles within 10 grey levels of the ground.

    Returns:
        N vehicles.
    """
    size = base_size * np.exp(rng.normal(0, _SPREAD, number))
    aspect = rng.uniform(1.15, 1.8, number)
    large = rng.uniform(size=number) < LARGE_SHARE
    size = np.where(large, rng.uniform(*LARGE_VEHICLES, number), size)
    aspect = np.where(large, rng.uniform(1.8, 2.6, number), aspect)

    # Labels are upright boxes with a rim, so the vehicle inside is smaller.
    size = size / _MEAN_GROWTH
    length = np.maximum(size * np.sqrt(aspect) - 2 * VISIBLE_RIM, 2.0)
    width = np.maximum(size / np.sqrt(aspect) - 2 * VISIBLE_RIM, 1.4)

    # One number decides among dark, dim and bright, so that none is two of them.
    kind = rng.uniform(size=number)
    bright = rng.uniform(15, 80, number)
    dark, dim = rng.uniform(-45, -15, number), rng.uniform(-10, 10, number)
    contrast = np.where(kind < dark_fraction, dark, bright)
    contrast = np.where(kind > 1 - dim_fraction, dim, contrast)

    tint = rng.normal(0, 0.08, (number, 3)) * contrast[:, None]
    glass = rng.choice([-1.0, 1.0], number) * rng.uniform(0.2, 0.5, number)
    return Vehicles(length, width, contrast, tint, glass)


def draw_vehicles(
    image: np.ndarray,
    ground: np.ndarray,
    vehicles: Vehicles,
    centers: np.ndarray,
    heading: np.ndarray,
    shown: np.ndarray,
    sun: tuple[float, float],
    blur: float,
) -> None:
    """Draw vehicles into an image, exactly anti-aliased and blurred: shadow, body, windscreen.

    A rectangle under a Gaussian blur is the product of two differences of its integral along its
    own axes, which needs no sub-pixels.

    Args:
        image: (H, W, 3) float32, changed.
        ground: (H, W, 3) float32, the smooth ground that the contrast is relative to.
        vehicles: N of them.
        centers: (N, 2) xy pixels of the image, whose edge is at 0.
        heading: (N,) radians clockwise on screen from the x axis.
        shown: (N,) opacity, 0 to 1.
        sun: (x, y) shift of the shadows, pixels.
        blur: standard deviation of the optics' blur, pixels.
    """
    # A pixel averages over its square, which adds the variance of a uniform distribution.
    sigma = math.sqrt(blur**2 + _PIXEL_VARIANCE)
    reach = np.hypot(vehicles.length, vehicles.width) / 2 + 3 * sigma + math.hypot(*sun)

    # Few different radii, because vehicles of one radius are computed together.
    radii = (np.ceil(reach / 4) * 4).astype(int)
    corner = np.floor(centers).astype(int)
    height, width = image.shape[:2]
    near = ((corner + radii[:, None] >= 0) & (corner - radii[:, None] < (width, height))).all(1)

    for radius in np.unique(radii[near]):
        chosen = np.flatnonzero(near & (radii == radius))
        local = centers[chosen] - corner[chosen]
        looks = vehicles.take(chosen)
        masks = _patches(looks, local, heading[chosen], sun, sigma, int(radius))

        for row, index in enumerate(chosen):
            x, y = corner[index] - radius
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + 2 * radius, width), min(y + 2 * radius, height)
            if left >= right or top >= bottom:
                continue

            part = np.s_[top - y : bottom - y, left - x : right - x]
            shadow, body, glass = (mask[row][part][:, :, None] * shown[index] for mask in masks)
            # One colour from under the centre: a body has no texture of the ground.
            spot = ground[
                min(max(corner[index, 1], 0), height - 1), min(max(corner[index, 0], 0), width - 1)
            ]
            color = spot + looks.contrast[row] + looks.tint[row]
            pane = spot + 0.35 * looks.contrast[row]

            view = image[top:bottom, left:right]
            view -= 14.0 * shadow
            view += body * (color - view)
            view += 0.7 * glass * (pane - view)


def _patches(
    vehicles: Vehicles,
    local: np.ndarray,
    heading: np.ndarray,
    sun: tuple[float, float],
    sigma: float,
    radius: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, K, K) coverage of shadow, body and windscreen, 0 to 1, around each vehicle."""
    grid = np.arange(-radius, radius, dtype=np.float32) + np.float32(0.5)
    dx = grid[None, None, :] - local[:, 0, None, None].astype(np.float32)
    dy = grid[None, :, None] - local[:, 1, None, None].astype(np.float32)

    cos, sin = (f(heading)[:, None, None].astype(np.float32) for f in (np.cos, np.sin))
    length, width = (v[:, None, None] for v in (vehicles.length, vehicles.width))
    along, across = cos * dx + sin * dy, cos * dy - sin * dx

    side = _bar(across, width, sigma)
    body = _bar(along, length, sigma) * side
    glass = _bar(along - vehicles.glass[:, None, None] * length / 2, 0.2 * length, sigma) * side

    # The shadow is the same body, moved in the vehicle's own axes.
    shift_along, shift_across = cos * sun[0] + sin * sun[1], cos * sun[1] - sin * sun[0]
    shadow = _bar(along - shift_along, length, sigma) * _bar(across - shift_across, width, sigma)
    return shadow, body, glass


def _bar(offset: np.ndarray, extent: np.ndarray, sigma: float) -> np.ndarray:
    """A bar of width ``extent`` around 0 under a Gaussian blur."""
    half = np.asarray(extent, dtype=np.float32) / 2
    scale = np.float32(1 / sigma)
    return ndtr((offset + half) * scale) - ndtr((offset - half) * scale)
