"""Settings of synthetic satellite video, and the numbers that scenes are drawn from.

The numbers are those measured on RsCarData; a scene draws its own size of vehicles, density and
speeds from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from rsd2.synthetic.limits import check_limits, image_shape


class Quantiles(NamedTuple):
    """A distribution given by its quantiles, linear in between.

    Args:
        shares: increasing from 0 to 1.
        values: values at these shares, increasing.
    """

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, share: float | np.ndarray) -> float | np.ndarray:
        """Return the value below which a share of the distribution lies.

        Args:
            share: 0 to 1; any shape.

        Returns:
            Values of the shape of ``share``.
        """
        return np.interp(share, self.shares, self.values)


DENSITY = Quantiles((0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), (1, 5.6, 12, 21, 35, 48, 73))
"""Labelled vehicles in a frame of 512 x 512 pixels, over the videos."""

SIZE = Quantiles((0, 0.1, 0.5, 0.75, 0.9, 0.97, 0.98, 1), (4, 4.5, 5.5, 7.75, 8.5, 8.9, 10, 15))
"""Median of the vehicles' sizes (square root of the box's area, pixels), over the videos."""

LARGE_VEHICLES = (12.0, 20.0)
LARGE_SHARE = 0.035
"""Trucks and buses: their sizes in pixels and their share."""


class SpeedMode(NamedTuple):
    """Speeds of one kind of scene.

    Args:
        share: share of the videos.
        means: means of the lanes' desired speeds, one drawn for each lane; pixels per frame.
        deviation: standard deviation of the vehicles' speeds; pixels per frame.
        slowest: lowest speed that a driver wishes; pixels per frame.
    """

    share: float
    means: tuple[float, ...]
    deviation: float
    slowest: float


SPEED_MODES = {
    "fast": SpeedMode(0.50, (2.6,), 0.4, 1.5),
    "mixed": SpeedMode(0.15, (2.0,), 0.4, 0.8),
    "urban": SpeedMode(0.20, (1.0,), 0.5, 0.3),
    "slow": SpeedMode(0.15, (1.1, 0.5), 0.08, 0.3),
}
"""``slow`` are scenes of a slow frame rate's twin: large vehicles that move little each frame."""

MAX_DRIFT = 0.08
STILL_SHARE = 0.4
"""Drift of "stabilised" video, pixels per frame; this share of the videos has none."""

IMAGE_MEAN, IMAGE_DEVIATION = 127.4, 21.05


_SIDES = 32, 2048  # least and most pixels of a side


@dataclass(frozen=True)
class VideoConfig:
    """Settings of the videos; the seed decides the rest.

    Args:
        size: (height, width) of the frames in pixels, or one number for both; 32 to 2048.
        num_frames: number of frames of each video, 1 to 2000.
        density: number of moving vehicles; 1 is RsCarData's, 25 in 512 x 512 pixels.
        standing_lanes: share of the lanes whose vehicles stand, 0 to 0.9; they look like those
            that move and are not labelled.
        parked: number of vehicles on parking lots and of bright corners of roofs; 1 is usual.
        dark_fraction: share of vehicles darker than the road, 0 to 1.
        dim_fraction: share of vehicles within 10 grey levels of the road, 0 to 1.
        noise: least and greatest standard deviation of the sensor's noise, grey levels.
        flicker: standard deviation of the gain of a frame, relative; cut at twice that.
        jitter: least and greatest step of the camera's random walk around its path, pixels.
        max_drift: greatest drift of the ground, pixels per frame, 0 to 3.
        parallax: greatest motion of tall buildings against the ground, pixels per frame, 0 to 0.5;
            it ends after 6 pixels.
        label_noise: standard deviation of a labelled corner before it is rounded, pixels.
        old_label_drop: share of the tracks that the file of old labels lacks, dim and slow ones
            first, 0 to 1; RsCarData's test videos have 0.4.
        jpeg_quality: quality of the written frames, 30 to 100.
    """

    size: int | tuple[int, int] = 512
    num_frames: int = 120
    density: float = 1.0
    standing_lanes: float = 0.25
    parked: float = 1.0
    dark_fraction: float = 0.12
    dim_fraction: float = 0.12
    noise: tuple[float, float] = (2.0, 4.0)
    flicker: float = 0.01
    jitter: tuple[float, float] = (0.05, 0.2)
    max_drift: float = MAX_DRIFT
    parallax: float = 0.1
    label_noise: float = 0.25
    old_label_drop: float = 0.0
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        """Validate the settings."""
        # The class is frozen; pairs from a config file arrive as lists and become tuples here.
        object.__setattr__(self, "size", self.shape)
        for name, highest in (("noise", 30.0), ("jitter", 3.0)):
            given = getattr(self, name)
            pair = tuple(map(float, given)) if isinstance(given, (tuple, list)) else ()
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= highest:
                raise ValueError(
                    f"{name} must be two numbers, 0 <= least <= greatest <= {highest}, got {given}"
                )
            object.__setattr__(self, name, pair)

        limits = {
            "num_frames": (1, 2000),
            "density": (0.0, 50.0),
            "standing_lanes": (0.0, 0.9),
            "parked": (0.0, 50.0),
            "dark_fraction": (0.0, 1.0),
            "dim_fraction": (0.0, 1.0),
            "flicker": (0.0, 0.2),
            "max_drift": (0.0, 3.0),
            "parallax": (0.0, 0.5),
            "label_noise": (0.0, 3.0),
            "old_label_drop": (0.0, 1.0),
            "jpeg_quality": (30, 100),
        }
        check_limits(self, limits)

        # Limits that are whole numbers belong to counts.
        for name, (low, _) in limits.items():
            if isinstance(low, int) and not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)}")

        if self.dark_fraction + self.dim_fraction > 1:
            raise ValueError(
                f"dark_fraction and dim_fraction must not exceed 1 together, got "
                f"{self.dark_fraction} and {self.dim_fraction}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, pixels."""
        return image_shape(self.size, *_SIDES)

    def to_dict(self) -> dict:
        """Return the settings as plain values that JSON can hold.

        Returns:
            Dictionary of the fields, and ``kind``, which tells them from those of single scenes.
        """
        lists = {name: list(getattr(self, name)) for name in ("size", "noise", "jitter")}
        return {"kind": "video", **asdict(self), **lists}
