"""The pixels that a model sees of a scene, which may be finer or coarser than the scene's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """A scene resampled as a whole; windows are cut from it, and never resampled one by one.

    Attributes:
        height: height of the resampled scene, pixels, >= 1.
        width: width of the resampled scene, pixels, >= 1.
        scene_height: height of the scene itself, pixels, >= 1.
        scene_width: width of the scene itself, pixels, >= 1.
    """

    height: int
    width: int
    scene_height: int
    scene_width: int

    @property
    def is_scene(self) -> bool:
        """Tell whether the pixels are the scene's own."""
        return (self.height, self.width) == (self.scene_height, self.scene_width)

    @property
    def scale(self) -> np.ndarray:
        """Pixels of the grid per pixel of the scene (2,), along x and y."""
        return np.array([self.width / self.scene_width, self.height / self.scene_height])

    def to_scene(self, points: np.ndarray) -> np.ndarray:
        """Map pixels of the grid to pixels of the scene.

        Args:
            points: (..., 2) x, y; for a rotated box its corners, because the two scales may differ.

        Returns:
            (..., 2) float64.
        """
        return np.asarray(points, dtype=np.float64) / self.scale

    def from_scene(self, points: np.ndarray) -> np.ndarray:
        """Map pixels of the scene to pixels of the grid.

        Args:
            points: (..., 2) x, y.

        Returns:
            (..., 2) float64.
        """
        return np.asarray(points, dtype=np.float64) * self.scale


def make_grid(
    height: int,
    width: int,
    pixel_size: tuple[float, float] | None = None,
    gsd: float | None = None,
    scale: float = 1.0,
) -> Grid:
    """Choose the grid of a scene.

    Args:
        height: height of the scene, pixels.
        width: width of the scene, pixels.
        pixel_size: metres of a pixel along x and y; needed for ``gsd``.
        gsd: metres of a pixel of the grid, equal along x and y, > 0: pixels that are not square on
            the ground become square. None keeps the pixels.
        scale: further factor, pixels of the grid per pixel of the scene, > 0.

    Returns:
        The grid; at least one pixel.

    Raises:
        ValueError: a number is out of range, or the size of the pixels is unknown.
    """
    if not scale > 0 or (gsd is not None and not gsd > 0):
        raise ValueError(f"gsd and scale must be positive, got {gsd} and {scale}")

    # Each axis has its own factor, so that the grid is square on the ground even if pixels are not.
    scale_x = scale_y = scale
    if gsd is not None:
        if pixel_size is None:
            raise ValueError(
                f"a scene without coordinates cannot be read at {gsd:g} m per pixel; georeference "
                "it, or give a scale instead"
            )
        scale_x, scale_y = scale * pixel_size[0] / gsd, scale * pixel_size[1] / gsd

    return Grid(max(1, round(height * scale_y)), max(1, round(width * scale_x)), height, width)
