"""A small picture of a scene with boxes on it, to see at a glance whether they lie right.

Shapes: D boxes; polygons (D, 4, 2) x, y in pixels of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from rsd2.data.drawing.boxes import class_color, draw_rotated_boxes
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster


def draw_quicklook(
    raster: Raster,
    radiometry: Radiometry,
    polygons: np.ndarray,
    classes: Sequence[int],
    labels: Sequence[str] | None = None,
    max_size: int = 2000,
) -> np.ndarray:
    """Draw a scene, read from its overviews, with boxes on it.

    Args:
        raster: the scene.
        radiometry: fixed for it; of more than three bands the first three are shown, of fewer the
            first one.
        polygons: (D, 4, 2) pixels of the scene, corners around the objects.
        classes: D indices, which choose the colours.
        labels: D texts; None draws outlines alone.
        max_size: longer side of the picture at most, pixels.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        RasterError: the file is damaged.
    """
    window, grid = raster.read_overview(max_size, radiometry)
    num_bands = window.pixels.shape[-1]
    shown = [0, 1, 2] if num_bands >= 3 else [0, 0, 0]
    image = np.rint(window.pixels[..., shown]).astype(np.uint8)

    corners = grid.from_scene(np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2))
    return draw_rotated_boxes(
        image,
        _envelopes(corners),
        labels=labels,
        colors=[class_color(index) for index in classes],
        polygons=corners,
    )


def encode_quicklook(picture: np.ndarray) -> bytes:
    """Encode a picture as PNG.

    Args:
        picture: (h, w, 3) uint8 RGB.

    Returns:
        Content of the file.

    Raises:
        ValueError: the picture cannot be encoded.
    """
    done, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"a picture of {picture.shape} cannot be written as PNG")
    return encoded.tobytes()


def _envelopes(corners: np.ndarray) -> np.ndarray:
    """Upright boxes (D, 5) around polygons: only their being finite matters to the drawing."""
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([(low + high) / 2, high - low, np.zeros((len(corners), 1))], axis=1)
