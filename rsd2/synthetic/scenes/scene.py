"""Overhead scenes drawn from a seed: configuration and the drawing of one scene.

Shapes: H and W image height and width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from rsd2.synthetic.canvas import Canvas
from rsd2.synthetic.limits import check_limits, image_shape
from rsd2.synthetic.textures import fractal_noise

from .site import Placed, Site, inside_share
from .themes import EMPTY, THEMES

VISIBLE_SHARE = 0.7
_SHADED_SHARE = 0.25
_TINY_AREA = 45.0
DEFAULT_THEME_WEIGHTS = {name: kind.weight for name, kind in THEMES.items() if name != EMPTY}


class SceneObject(NamedTuple):
    """A labelled object.

    Args:
        poly: (4, 2) float64 image pixels, clockwise on screen from the front left corner.
        name: class, of SYNTHETIC_CLASSES.
        difficult: 0; 1 for tiny or heavily shadowed objects; 2 for those cut by the border.
    """

    poly: np.ndarray
    name: str
    difficult: int


class Scene(NamedTuple):
    """An image with its objects.

    Args:
        image: (H, W, 3) uint8 RGB.
        objects: labelled objects, in drawing order.
        theme: name of the theme that the scene shows.
    """

    image: np.ndarray
    objects: list[SceneObject]
    theme: str


_SIDES = 32, 8192  # least and most pixels of a side


@dataclass(frozen=True)
class SceneConfig:
    """Settings of the scenes; the seed decides the rest.

    Args:
        size: (height, width) of the image in pixels, or one number for both; 32 to 8192.
        scale: pixels per scene unit (about 0.33 m): sizes of all objects are multiplied by it. At 1
            cars are 13-16 px long and planes 32-70 px; 0.8 suits images of 128 px.
        empty_fraction: share of scenes without any object, 0 to 1.
        density: most objects per 100 x 100 units of ground, > 0.
        clutter: amount of unlabelled things that resemble objects; 0 for none, 1 is usual.
        degradation: haze, blur, noise and compression; 0 for none, 1 is usual, at most 3.
        theme_weights: relative frequency of the themes with objects.
    """

    size: int | tuple[int, int] = 512
    scale: float = 1.0
    empty_fraction: float = 0.06
    density: float = 8.0
    clutter: float = 1.0
    degradation: float = 1.0
    theme_weights: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_THEME_WEIGHTS))

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.shape)
        limits = {
            "scale": (0.2, 8.0),
            "empty_fraction": (0.0, 1.0),
            "density": (0.1, 100.0),
            "clutter": (0.0, 10.0),
            "degradation": (0.0, 3.0),
        }

        check_limits(self, limits)
        known = list(DEFAULT_THEME_WEIGHTS)
        unknown = sorted(set(self.theme_weights) - set(known))
        if unknown:
            raise ValueError(f"theme_weights has unknown themes {unknown}; known are {known}")
        if min(self.theme_weights.values(), default=0) < 0 or not any(self.theme_weights.values()):
            raise ValueError(
                f"theme_weights must be >= 0 with at least one > 0, got {self.theme_weights}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, pixels."""
        return image_shape(self.size, *_SIDES)

    @property
    def max_objects(self) -> int:
        """Largest number of objects in one scene."""
        height, width = self.shape
        # Ground, not pixels, counts: a larger scale shows less of it.
        return max(1, round(self.density * height * width / (100 * self.scale) ** 2))

    def to_dict(self) -> dict:
        """Return the settings as plain values that JSON can hold.

        Returns:
            Dictionary of the fields.
        """
        return {**asdict(self), "size": list(self.shape)}


def draw_scene(config: SceneConfig, seed: int, index: int) -> Scene:
    """Draw one scene.

    Objects that the border cuts keep their full box, which then leaves the image: at least
    VISIBLE_SHARE of its area inside, the label is an ordinary one; less, it is difficult 2. Objects
    of which less than LEAST_SHARE would be inside are not drawn.

    Args:
        config: settings of the scenes.
        seed: seed of the set of scenes, >= 0.
        index: index of the scene in the set, >= 0.

    Returns:
        The scene; equal arguments give equal scenes in every process.

    Raises:
        ValueError: if ``seed`` or ``index`` is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be >= 0, got {seed} and {index}")

    # A generator of its own for each scene: it does not depend on who draws the others.
    rng = np.random.default_rng([seed, index])
    height, width = config.shape

    theme = _pick_theme(config, rng)
    turn = float(rng.uniform(-math.pi, math.pi))
    base = str(rng.choice(THEMES[theme].grounds))
    # The empty theme may place nothing that carries a label.
    budget = 0 if theme == EMPTY else config.max_objects
    site = Site(rng, height, width, config.scale, base, budget, turn)
    THEMES[theme].fill(site, config.clutter)

    # Small scenes have small objects, whose edges need finer steps.
    supersample = 4 if max(height, width) <= 256 else 2
    azimuth, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.1)
    sun = (math.cos(azimuth) * reach, math.sin(azimuth) * reach)

    canvas = Canvas(height, width, supersample, sun)
    ground = site.ground.render()
    cv2.resize(
        ground,
        (width * supersample, height * supersample),
        dst=canvas.image,
        interpolation=cv2.INTER_LINEAR,
    )
    site.draw(canvas, float(rng.uniform(0.45, 0.65)))
    image = degrade(canvas.downsample(), rng, config.degradation)
    return Scene(image, _labels(site.objects, height, width), theme)


def _pick_theme(config: SceneConfig, rng: np.random.Generator) -> str:
    if rng.uniform() < config.empty_fraction:
        return EMPTY
    names = list(config.theme_weights)
    weights = np.array([config.theme_weights[name] for name in names], dtype=np.float64)
    return str(rng.choice(names, p=weights / weights.sum()))


def _labels(placed: list[Placed], height: int, width: int) -> list[SceneObject]:
    objects = []
    for item in placed:
        corners = item.corners()
        share = inside_share(corners, height, width)
        tiny = item.length * item.width < _TINY_AREA
        # DOTA's flag knows 0 and 1; 2 is our level for objects that the border cuts.
        difficult = 2 if share < VISIBLE_SHARE else int(tiny or item.shaded > _SHADED_SHARE)
        objects.append(SceneObject(corners, item.name, difficult))
    return objects


def degrade(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Degrade an image as sensor and archive do: light, haze, blur, noise and compression.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of randomness.
        strength: 0 for none, 1 is usual, at most 3.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if strength == 0:
        return image

    height, width = image.shape[:2]
    # One table for each channel: brightness, tint and the haze that lifts the blacks.
    gain = np.exp(rng.normal(0, 0.07 * strength, 3) * 0.5 + rng.normal(0, 0.1 * strength))
    floor = rng.uniform(0, 14) * strength
    table = np.arange(256)[:, None] * np.minimum(gain, 1.15) + floor
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])

    if rng.uniform() < 0.3 * strength:
        haze = fractal_noise(rng, height, width, (max(height, width) / 2.5,))
        veil = np.clip(haze * np.float32(0.14) + np.float32(0.1), 0, 0.32)
        white = np.zeros_like(image)
        cv2.rectangle(white, (0, 0), (width, height), (214, 218, 224), cv2.FILLED)
        image = cv2.blendLinear(image, white, 1 - veil, veil)

    sigma = rng.uniform(0.2, 0.65) * strength
    if sigma > 0.35:
        image = cv2.GaussianBlur(image, (3, 3), sigma)

    amplitude = rng.uniform(0.02, 0.06) * strength
    # Uniform noise in whole numbers costs a fraction of normal noise.
    grain = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = cv2.addWeighted(image, 1.0, grain, amplitude, -127.5 * amplitude)

    if rng.uniform() < 0.6 * strength:
        quality = int(rng.integers(max(40, int(92 - 22 * strength)), 95))
        ok, packed = cv2.imencode(
            ".jpg",
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            (cv2.IMWRITE_JPEG_QUALITY, quality),
        )
        if not ok:
            raise RuntimeError(f"cv2 could not encode an image of {width} x {height} as JPEG")
        decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        assert decoded is not None, "OpenCV reads what it has just written"
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return image
