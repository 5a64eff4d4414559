"""A small picture of a scene with outlines on it, which shows at a glance whether they lie right.

Shapes: D objects; polygons (D, 4, 2) x, y in pixels of the scene.
"""

from __future__ import annotations

import cv2
import numpy as np

from rsd2.data.drawing.boxes import class_color
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster

QUICKLOOK_SIZE = 2048
"""Largest longer side of the picture, pixels."""

_SHIFT = 4
"""Binary digits behind the point of the coordinates that OpenCV takes."""


def draw_quicklook(
    raster: Raster,
    radiometry: Radiometry,
    polygons: np.ndarray,
    classes: np.ndarray,
    max_size: int = QUICKLOOK_SIZE,
) -> np.ndarray:
    """Draw the whole scene in few pixels, with outlines coloured by class.

    Args:
        raster: the scene.
        radiometry: measured rule of the scene; of more than three bands the first three are
            shown, of two the first one.
        polygons: (D, 4, 2) pixels of the scene, corners around the objects.
        classes: (D,) indices, which choose the colours.
        max_size: largest longer side of the picture, pixels.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        RasterError: the file is damaged.
    """
    window, grid = raster.read_overview(max_size, radiometry)
    shown = [0, 1, 2] if window.pixels.shape[-1] >= 3 else [0, 0, 0]
    picture = np.ascontiguousarray(np.rint(window.pixels[..., shown]).astype(np.uint8))

    corners = grid.from_scene(np.asarray(polygons).reshape(-1, 4, 2))
    # OpenCV counts from the centre of the first pixel, we from its corner.
    points = np.rint((corners - 0.5) * (1 << _SHIFT)).astype(np.int32)

    for label in np.unique(classes):
        chosen = list(points[np.asarray(classes) == label])
        cv2.polylines(picture, chosen, True, class_color(int(label)), 1, cv2.LINE_AA, _SHIFT)
    return picture
