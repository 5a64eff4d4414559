"""Ground of a synthetic scene: materials, noise, and the painter that mixes them.

Shapes: H and W image height and width, P points of a polygon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Color

# Bits of a zone map; the site adds TAKEN where something stands.
LAND, WATER, PAVED, TAKEN = 1, 2, 4, 8


@dataclass(frozen=True)
class Material:
    """Material of a piece of ground.

    Args:
        color: mean RGB, 0-255.
        roughness: amplitude of its texture, grey levels.
        zone: LAND, WATER or PAVED, which decides what may stand on it.
    """

    color: Color
    roughness: int
    zone: int = LAND


MATERIALS: dict[str, Material] = {
    "grass": Material((88, 108, 62), 13),
    "meadow": Material((118, 128, 76), 15),
    "dry_field": Material((162, 146, 106), 12),
    "soil": Material((134, 112, 86), 14),
    "sand": Material((190, 174, 138), 9),
    "gravel": Material((156, 150, 140), 9),
    "forest_floor": Material((62, 78, 46), 16),
    "asphalt": Material((92, 93, 95), 6, PAVED),
    "old_asphalt": Material((122, 120, 117), 8, PAVED),
    "concrete": Material((168, 166, 158), 6, PAVED),
    "sea": Material((38, 74, 96), 9, WATER),
    "green_water": Material((50, 82, 76), 8, WATER),
    "muddy_water": Material((96, 100, 82), 7, WATER),
}


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, ...]
) -> np.ndarray:
    """Return smooth random noise, a sum of octaves of about unit variance in all.

    Args:
        rng: source of randomness.
        height: H.
        width: W.
        cells: size of the grid cells of each octave, pixels.

    Returns:
        (H, W) float32.
    """
    total = np.zeros((height, width), dtype=np.float32)
    for cell in cells:
        # One grid point more than cells, because the interpolation runs between points.
        shape = (max(2, math.ceil(height / cell) + 1), max(2, math.ceil(width / cell) + 1))
        grid = rng.standard_normal(shape, dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)

    # Linear interpolation lowers the variance, which 1.4 makes up for.
    return total * np.float32(1.4 / math.sqrt(len(cells)))


def wave_noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Return noise stretched across a random wind direction, like small waves from above.

    Args:
        rng: source of randomness.
        height: H.
        width: W.
        scale: pixels of the image per unit; the waves are about 3 units apart.

    Returns:
        (H, W) float32 of about unit variance.
    """
    # A square of the diagonal covers the image whatever the wind's direction.
    side = math.ceil(math.hypot(height, width))
    along, across = max(8.0 * scale, 2.0), max(2.6 * scale, 1.0)
    grid = rng.standard_normal(
        (math.ceil(side / across) + 1, math.ceil(side / along) + 1), dtype=np.float32
    )

    field = cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR)
    matrix: np.ndarray = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.0)
    matrix[:, 2] -= np.array([side - width, side - height]) / 2

    rotated = cv2.warpAffine(field, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return rotated + 0.7 * fractal_noise(rng, height, width, (60 * scale + 2,))


def stripe_pattern(rng: np.random.Generator, height: int, width: int, period: float) -> np.ndarray:
    """Return parallel stripes of a random direction, like the rows of a field.

    Args:
        rng: source of randomness.
        height: H.
        width: W.
        period: distance of the rows, pixels, > 0.

    Returns:
        (H, W) float32, -1 to 1.
    """
    theta, period = rng.uniform(0, math.pi), float(period)

    x = np.arange(width, dtype=np.float32) * (2 * math.pi * math.cos(theta) / period)
    y = np.arange(height, dtype=np.float32) * (2 * math.pi * math.sin(theta) / period)
    # sin(a + b) from the sines of one row and one column: no sine per pixel.
    return np.outer(np.sin(y), np.cos(x)) + np.outer(np.cos(y), np.sin(x))


class Ground:
    """Painter of the ground: flat regions of materials first, their texture at the end.

    Args:
        rng: source of randomness.
        height: H of the image, pixels.
        width: W of the image, pixels.
        scale: pixels per unit of the scene.
        base: material of the whole ground, a key of MATERIALS.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, scale: float, base: str):
        self._rng, self._scale = rng, scale
        self._tints: dict[str, Color] = {}
        self.color = np.zeros((height, width, 3), dtype=np.uint8)
        self.roughness = np.zeros((height, width), dtype=np.uint8)
        self.zone = np.zeros((height, width), dtype=np.uint8)
        self._stripes: list[tuple[np.ndarray, float]] = []

        cv2.rectangle(self.color, (0, 0), (width, height), self.tint(base), cv2.FILLED)
        self.roughness[:] = MATERIALS[base].roughness
        self.zone[:] = MATERIALS[base].zone

    def tint(self, material: str) -> Color:
        """Return this scene's colour of a material.

        Args:
            material: a key of MATERIALS.

        Returns:
            RGB, 0-255; the same at every call for one scene.
        """
        # Drawn at the first use: the order of use is part of the scene's random numbers.
        if material not in self._tints:
            kind = MATERIALS[material]
            spread = 7.0 if kind.roughness > 10 else 2.5  # concrete is grey, fields are of any hue

            gain, jitter = self._rng.uniform(0.86, 1.14), self._rng.uniform(-spread, spread, 3)
            values = np.asarray(kind.color) * gain + jitter
            red, green, blue = (int(value) for value in np.clip(values, 5, 245))
            self._tints[material] = (red, green, blue)
        return self._tints[material]

    def fill(self, points: np.ndarray, material: str, stripe: float = 0.0) -> None:
        """Cover a polygon with a material.

        Args:
            points: (P, 2) image pixels.
            material: a key of MATERIALS.
            stripe: distance of the rows of a field, pixels; 0 for none.
        """
        fixed = np.rint(np.asarray(points) * 16 - 8).astype(np.int32)
        kind = MATERIALS[material]

        cv2.fillPoly(self.color, [fixed], self.tint(material), cv2.LINE_AA, 4)
        cv2.fillPoly(self.roughness, [fixed], kind.roughness, cv2.LINE_8, 4)

        x, y, width, height = cv2.boundingRect((fixed >> 4).clip(0, max(self.zone.shape)))
        window = self.zone[y : y + height + 1, x : x + width + 1]
        taken = window & TAKEN  # ground laid under something leaves it standing

        cv2.fillPoly(self.zone, [fixed], kind.zone, cv2.LINE_8, 4)
        window |= taken

        # Kept for `render`, which adds all texture at once.
        if stripe > 0:
            mask = np.zeros_like(self.zone)
            cv2.fillPoly(mask, [fixed], 1, cv2.LINE_8, 4)
            self._stripes.append((mask, stripe))

    def render(self) -> np.ndarray:
        """Add the texture to the regions.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        height, width = self.zone.shape
        unit = self._scale

        # The coarse octaves are summed on a coarse grid: resizing is what noise costs.
        small = (-(-height // 4), -(-width // 4))
        coarse = fractal_noise(self._rng, *small, (17 * unit, 3.5 * unit))
        noise: np.ndarray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        noise += fractal_noise(self._rng, height, width, (4 * unit, 1.5))
        noise *= np.float32(math.sqrt(0.5))

        water = (self.zone & WATER) > 0
        if water.any():
            noise = np.where(water, wave_noise(self._rng, height, width, unit), noise)
        for mask, period in self._stripes:
            noise += mask * (0.8 * stripe_pattern(self._rng, height, width, period))

        # From here on in grey levels.
        noise *= self.roughness
        tint = fractal_noise(self._rng, *small, (10 * unit + 1,)) * np.float32(1.7)
        tint = cv2.resize(tint, (width, height), interpolation=cv2.INTER_LINEAR)

        # The tint shifts red against blue, so that a meadow is not one hue.
        offset = cv2.merge([noise + tint, noise, noise * np.float32(0.8) - tint])
        return cv2.add(self.color, offset, dtype=cv2.CV_8U)
