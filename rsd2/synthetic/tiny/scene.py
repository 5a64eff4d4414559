"""Beaches and seas with people and boats of 2 to 20 pixels, drawn from a seed.

The scenes have what makes TinyPerson hard: objects of few pixels, crowds that are labelled as one
ignore region, uncertain people, logos, dense images.

Shapes: H and W image height and width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np

from rsd2.synthetic.canvas import Canvas
from rsd2.synthetic.limits import check_limits, image_shape
from rsd2.synthetic.scenes.scene import degrade
from rsd2.synthetic.textures import Ground

from .layout import DENSE_COUNT, TinyLayout

TINY_CATEGORIES = ("sea_person", "earth_person", "boat")
"""Category k + 1 of the files; the first two are those of TinyPerson."""


class TinyObject(NamedTuple):
    """One annotation.

    Args:
        box: (4,) float64 x0, y0, x1, y1, image pixels, inside the image.
        category: one of TINY_CATEGORIES.
        ignore: the box encloses a crowd or a logo, where detections do not count.
        uncertain: the object can hardly be recognised; treated like ``ignore``.
        logo: something printed on the image.
    """

    box: np.ndarray
    category: str
    ignore: bool = False
    uncertain: bool = False
    logo: bool = False


class TinyScene(NamedTuple):
    """An image with its annotations.

    Args:
        image: (H, W, 3) uint8 RGB.
        objects: annotations, from top to bottom.
        dense: there are more than DENSE_COUNT annotations.
        theme: ``beach``, ``sea`` or ``empty``.
    """

    image: np.ndarray
    objects: list[TinyObject]
    dense: bool
    theme: str


_SIDES = 64, 4096  # least and most pixels of a side


@dataclass(frozen=True)
class TinySceneConfig:
    """Settings of the scenes; the seed decides the rest.

    Args:
        size: (height, width) of the image in pixels, or one number for both; 64 to 4096.
        object_size: least and greatest square root of an object's area, pixels, 1.5 to 64.
        empty_fraction: share of scenes without annotation, 0 to 1.
        dense_fraction: share of scenes with more than DENSE_COUNT objects, 0 to 1; small scenes
            have no room for so many and hold what fits.
        density: number of objects, 1 is usual: 4 to 28 for each 256 x 320 pixels.
        ignore_rate: mean number of crowds that are labelled as one region, per scene, >= 0.
        uncertain_fraction: share of people that can hardly be recognised, 0 to 1.
        clutter: amount of unlabelled things: parasols, towels, rocks, buoys, foam; 1 is usual.
        degradation: haze, blur, noise and compression; 0 for none, 1 is usual, at most 3.
    """

    size: int | tuple[int, int] = (256, 320)
    object_size: tuple[float, float] = (2.0, 20.0)
    empty_fraction: float = 0.04
    dense_fraction: float = 0.03
    density: float = 1.0
    ignore_rate: float = 0.35
    uncertain_fraction: float = 0.07
    clutter: float = 1.0
    degradation: float = 0.7

    def __post_init__(self) -> None:
        """Validate the settings."""
        # The class is frozen; one number for the size becomes a pair here.
        object.__setattr__(self, "size", self.shape)
        extent = tuple(float(value) for value in self.object_size)
        if len(extent) != 2 or not 1.5 <= extent[0] < extent[1] <= 64:
            raise ValueError(
                f"object_size must be two numbers, 1.5 <= least < greatest <= 64, got "
                f"{self.object_size}"
            )
        object.__setattr__(self, "object_size", extent)

        limits = {
            "empty_fraction": (0.0, 1.0),
            "dense_fraction": (0.0, 1.0),
            "density": (0.05, 20.0),
            "ignore_rate": (0.0, 10.0),
            "uncertain_fraction": (0.0, 1.0),
            "clutter": (0.0, 10.0),
            "degradation": (0.0, 3.0),
        }
        check_limits(self, limits)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, pixels."""
        return image_shape(self.size, *_SIDES)

    def to_dict(self) -> dict:
        """Return the settings as plain values that JSON can hold.

        Returns:
            Dictionary of the fields, and ``kind``, which tells them from ``SceneConfig``.
        """
        lists = {"size": list(self.shape), "object_size": list(self.object_size)}
        return {"kind": "tiny", **asdict(self), **lists}


def draw_tiny_scene(config: TinySceneConfig, seed: int, index: int) -> TinyScene:
    """Draw one scene.

    Args:
        config: settings of the scenes.
        seed: seed of the set of scenes, >= 0.
        index: index of the scene in the set, >= 0.

    Returns:
        The scene; equal arguments give equal scenes in every process. Boxes are tight around the
        drawn figures, without their shadows, and cut at the border of the image.

    Raises:
        ValueError: if ``seed`` or ``index`` is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be >= 0, got {seed} and {index}")

    # A generator of its own for each scene: it does not depend on who draws the others.
    rng = np.random.default_rng([seed, index])
    height, width = config.shape

    theme = "beach" if rng.uniform() < 0.75 else "sea"
    empty = rng.uniform() < config.empty_fraction
    dense = not empty and rng.uniform() < config.dense_fraction

    water = str(rng.choice(["sea", "sea", "green_water"]))
    ground = Ground(rng, height, width, 1.0, water)
    azimuth, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.8)
    # Objects of two pixels need fine steps; very large images would need too much memory.
    supersample = 4 if max(height, width) <= 1024 else 2
    sun = (math.cos(azimuth) * reach, math.sin(azimuth) * reach)
    canvas = Canvas(height, width, supersample, sun)

    layout = TinyLayout(rng, canvas, ground, config.object_size)
    # The ground comes first, because it decides who may stand where.
    if theme == "beach":
        layout.lay_beach()
    layout.add_clutter(config.clutter)
    if not empty:
        _fill(layout, config, dense)

    size = (width * supersample, height * supersample)
    cv2.resize(ground.render(), size, dst=canvas.image, interpolation=cv2.INTER_LINEAR)
    layout.draw(float(rng.uniform(0.35, 0.55)))
    image = degrade(canvas.downsample(), rng, config.degradation)

    objects = [
        TinyObject(item.box, item.category, item.ignore, item.uncertain)
        for item in layout.annotations()
    ]
    # The logo is printed on the finished image, as a television station does it.
    if not empty and rng.uniform() < 0.06:
        image, box = _print_logo(image, rng)
        objects.append(TinyObject(box, TINY_CATEGORIES[1], ignore=True, logo=True))

    theme = theme if objects else "empty"
    return TinyScene(image, objects, len(objects) > DENSE_COUNT, theme)


def _fill(layout: TinyLayout, config: TinySceneConfig, dense: bool) -> None:
    """Place crowds first, because they need room, then boats, then people."""
    rng = layout.rng
    height, width = config.shape
    room = height * width / (256 * 320)

    count = config.density * rng.uniform(4, 28) * room
    if dense:
        layout.shrink()
        count = rng.uniform(1.15, 1.6) * DENSE_COUNT

    for _ in range(rng.poisson(config.ignore_rate)):
        layout.add_crowd()

    boats = rng.poisson(0.12 * min(count, 60 * room))
    for _ in range(boats):
        layout.add_boat()

    layout.add_people(max(1, round(count)), config.uncertain_fraction, packed=dense)


def _print_logo(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Print a station's logo into a corner, as aerial video has it."""
    height, width = image.shape[:2]
    across, down = int(rng.integers(28, 44)), int(rng.integers(9, 14))
    x = 4 if rng.uniform() < 0.5 else width - across - 4
    y = 4 if rng.uniform() < 0.5 else height - down - 4

    image = image.copy()
    patch = image[y : y + down, x : x + across]
    printed = np.full_like(patch, 235)
    text = str(rng.choice(["BEACH", "SKY 4", "LIVE"]))
    cv2.putText(
        printed, text, (2, down - 3), cv2.FONT_HERSHEY_PLAIN, down / 15, (30, 40, 120), 1,
        cv2.LINE_AA,
    )  # fmt: skip

    image[y : y + down, x : x + across] = cv2.addWeighted(patch, 0.35, printed, 0.65, 0)
    return image, np.array([x, y, x + across, y + down], dtype=np.float64)
