"""The ground of a synthetic video: fields, roads, bridges, and a layer of buildings above.

Shapes: H and W height and width of the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rsd2.synthetic.textures import TAKEN, Ground, fractal_noise

from .config import IMAGE_DEVIATION, IMAGE_MEAN
from .roads import Road

_SCALE = 0.35  # pixels per unit of the textures: about 1 m for each pixel
_FIELDS = ("meadow", "dry_field", "soil", "grass", "gravel", "forest_floor", "old_asphalt")
_SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
_ROOFS = ((176, 172, 166), (150, 128, 112), (196, 192, 188), (122, 118, 116), (168, 108, 88))


@dataclass
class Backdrop:
    """The layers of the ground.

    Attributes:
        ground: (H, W, 3) float32 RGB, grey levels.
        smooth: (H, W, 3) float32, the ground without detail.
        tall: (H, W, 4) float32, colour of the buildings times their cover, and the cover, 0 to 1.
        lots: (K, 3) parking places: x, y, heading.
    """

    ground: np.ndarray
    smooth: np.ndarray
    tall: np.ndarray
    lots: np.ndarray


def draw_backdrop(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    roads: Sequence[Road],
    vehicle: float,
    blur: float,
    sun: tuple[float, float],
) -> Backdrop:
    """Draw everything that does not move.

    Args:
        rng: source of randomness.
        canvas: (height, width), pixels.
        roads: roads from the lowest to the highest.
        vehicle: length of a usual vehicle, pixels; parking places suit it.
        blur: standard deviation of the optics' blur, pixels.
        sun: (x, y) shift of the shadow of a vehicle, pixels.

    Returns:
        The layers; mean and deviation over ground and buildings are those of RsCarData, up to
        a scene's own brightness.
    """
    height, width = canvas
    ground = Ground(rng, height, width, _SCALE, str(rng.choice(["meadow", "dry_field", "soil"])))
    _lay_fields(rng, ground, canvas)

    road_material = str(rng.choice(["asphalt", "old_asphalt", "concrete"]))

    # Roads from the lowest up, so that a bridge covers the road below it.
    taken = np.zeros(canvas, dtype=np.uint8)
    for road in roads:
        for low, high in _bridges(road, roads):
            ground.fill(road.outline(low, high, grow=1.5), "concrete")
        ground.fill(road.outline(), road_material)
        cv2.fillPoly(taken, [np.rint(road.outline(grow=5.0)).astype(np.int32)], TAKEN)

    lots = _lay_lots(rng, ground, taken, vehicle)
    pixels: np.ndarray = ground.render().astype(np.float32)
    _draw_markings(pixels, roads)
    _plant_trees(rng, pixels, taken)
    tall = _build(rng, taken, pixels, sun)

    # The optics blur what is drawn sharp; vehicles get the same blur when they are drawn.
    pixels, tall = (cv2.GaussianBlur(layer, (0, 0), blur) for layer in (pixels, tall))
    whole = pixels * (1 - tall[:, :, 3:]) + tall[:, :, :3]

    # Ground and buildings together get the contrast of real video, so both take one gain.
    gain = IMAGE_DEVIATION * 0.97 / max(float(whole.std()), 1.0)
    level = IMAGE_MEAN + rng.normal(0, 5.0)
    offset = level - gain * float(whole.mean())
    pixels = pixels * gain + offset
    tall[:, :, :3] = tall[:, :, :3] * gain + offset * tall[:, :, 3:]

    smooth = cv2.blur(pixels, (9, 9))
    return Backdrop(pixels, smooth, tall, lots)


def _lay_fields(rng: np.random.Generator, ground: Ground, canvas: tuple[int, int]) -> None:
    """Lay patches of fields, blocks and woods."""
    height, width = canvas
    for _ in range(max(4, round(height * width / 9000))):
        center = rng.uniform(0, 1, 2) * (width, height)
        sides = rng.uniform(20, 110, 2)
        corners = _SQUARE * sides * rng.uniform(0.8, 1.2, (4, 2))

        angle = rng.uniform(0, math.pi)
        material = str(rng.choice(_FIELDS))
        stripe = 5.0 if material in ("soil", "dry_field") and rng.uniform() < 0.5 else 0.0
        ground.fill(corners @ _turn(angle) + center, material, stripe)


def _turn(angle: float) -> np.ndarray:
    """(2, 2) matrix that turns rows of xy clockwise on screen by an angle in radians."""
    return np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])


def _bridges(road: Road, roads: Sequence[Road]) -> list[tuple[float, float]]:
    """Find the stretches of a road that lead over lower ones."""
    stretches = []
    for lower in roads:
        for low, high in lower.hidden if lower is not road else ():
            middle = lower.path[min(int((low + high) / 2), len(lower.path) - 1)]
            # This road is the upper one if it passes over the middle of the hidden stretch.
            distance = np.hypot(*(road.path - middle).T)
            if distance.min() < 3:
                arc, reach = float(distance.argmin()), lower.half_width * 1.6 + 4
                stretches.append((arc - reach, arc + reach))
    return stretches


def _lay_lots(
    rng: np.random.Generator, ground: Ground, taken: np.ndarray, vehicle: float
) -> np.ndarray:
    """Pave parking lots beside the roads; return x, y, heading (K, 3) of their places."""
    height, width = taken.shape
    places = [np.zeros((0, 3))]
    pitch, row = vehicle * 0.75 + 2.5, vehicle + 5.0
    for _ in range(max(2, round(height * width / 40000))):
        columns, rows = rng.integers(4, 12), rng.integers(1, 4)
        size = np.array([columns * pitch + 4, rows * row + 4])

        center, angle = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0, math.pi)
        turn = _turn(angle)
        corners = _SQUARE * size @ turn + center

        if _claim(taken, corners):
            ground.fill(corners, str(rng.choice(["asphalt", "old_asphalt", "gravel"])))
            # Bays of a row stand side by side, so vehicles head across the row.
            x = (np.arange(columns) + 0.5) * pitch - columns * pitch / 2
            y = (np.arange(rows) + 0.5) * row - rows * row / 2
            grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) @ turn + center
            heading = np.full(len(grid), angle + math.pi / 2)
            places.append(np.column_stack([grid, heading]))
    return np.concatenate(places)


def _claim(taken: np.ndarray, corners: np.ndarray) -> bool:
    """Mark a polygon as used; False, and nothing marked, if something is there."""
    fixed = np.rint(corners).astype(np.int32)
    x, y, width, height = cv2.boundingRect(fixed)
    # Cut to the image: numpy would count a negative start from the far end.
    left, top = max(x, 0), max(y, 0)
    window = taken[top : max(y + height, 0), left : max(x + width, 0)]
    if window.size == 0:
        return False

    mask = np.zeros(window.shape, dtype=np.uint8)
    cv2.fillPoly(mask, [fixed - (left, top)], TAKEN)
    if (window & mask).any():
        return False

    window |= mask
    return True


def _draw_markings(pixels: np.ndarray, roads: Sequence[Road]) -> None:
    """Draw the line between the two directions, which one metre per pixel just shows."""
    over = np.zeros(pixels.shape[:2], dtype=np.uint8)
    for road in roads:
        line = np.rint(road.path * 16 - 8).astype(np.int32)
        over[:] = 0
        cv2.polylines(over, [line], False, 255, 1, cv2.LINE_AA, 4)
        pixels += (over.astype(np.float32) * (18 / 255))[:, :, None]


def _plant_trees(rng: np.random.Generator, pixels: np.ndarray, taken: np.ndarray) -> None:
    """Draw dark crowns in groups."""
    height, width = taken.shape
    wood = fractal_noise(rng, height, width, (60.0, 25.0))

    crowns = np.zeros((height, width), dtype=np.float32)
    for _ in range(round(height * width / 160)):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        if wood[y, x] > 0.6 and not taken[y, x]:
            cv2.circle(crowns, (x, y), int(rng.integers(1, 4)), float(rng.uniform(14, 34)), -1)

    # Green loses least, so woods are dark green rather than grey.
    pixels -= crowns[:, :, None] * np.array([1.0, 0.75, 1.0], dtype=np.float32)


def _build(
    rng: np.random.Generator, taken: np.ndarray, pixels: np.ndarray, sun: tuple[float, float]
) -> np.ndarray:
    """Draw the roofs (H, W, 4), whose shadows fall on ``pixels``."""
    height, width = taken.shape
    tall = np.zeros((height, width, 4), dtype=np.float32)
    reach = np.asarray(sun) / max(math.hypot(*sun), 1e-6)
    # Most buildings of a scene stand in one direction, as along streets.
    angle = rng.uniform(0, math.pi)
    for _ in range(max(3, round(height * width / 5000))):
        sides, center = rng.uniform(8, 46, 2), rng.uniform(0, 1, 2) * (width, height)
        turned = angle if rng.uniform() < 0.8 else rng.uniform(0, math.pi)
        corners = _SQUARE * sides @ _turn(turned) + center
        if not _claim(taken, corners):
            continue

        shadow = np.concatenate([corners, corners + reach * rng.uniform(3, 9)])
        hull = cv2.convexHull(np.rint(shadow).astype(np.int32))
        mask = np.zeros((height, width), dtype=np.uint8)
        cv2.fillConvexPoly(mask, hull, 1)
        pixels[mask > 0] *= 0.62

        color = np.clip(np.array(_ROOFS[rng.integers(len(_ROOFS))]) * rng.uniform(0.8, 1.2), 0, 255)
        outline = np.rint(corners * 16 - 8).astype(np.int32)
        cv2.fillPoly(tall, [outline], (*color.tolist(), 1.0), cv2.LINE_8, 4)

        # A second shade on one side of the ridge makes a gable.
        ridge = np.rint(np.stack([corners[0] + corners[3], corners[1] + corners[2]]) * 8 - 8)
        shade = (*(color * rng.uniform(0.8, 1.15)).tolist(), 1.0)
        half = np.concatenate([outline[:2], ridge[::-1].astype(np.int32)])
        cv2.fillPoly(tall, [half], shade, cv2.LINE_8, 4)
    return tall
