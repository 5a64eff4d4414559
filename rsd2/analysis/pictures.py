"""The images of a data set with their objects, as the doctor examines them.

Worker processes import this module, so that it needs neither PyTorch nor Detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.data.formats.label_format import LabelledImage
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.mappers.raster_windows import RasterWindows
from rsd2.data.windows.tiling import crop_window, parse_tile_name
from rsd2.io.image_io import read_image


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a data set, with its objects.

    Attributes:
        path: image file.
        image: its name, size and objects.
        tile: ``source_id``, ``x``, ``y``, ``width``, ``height``, ``virtual`` of a window of a
            larger image, or None.
        raster: what a dataset dict says about the raster behind a scene, or None.
        metres: side of a pixel on the ground, or None if it is unknown.
    """

    path: str
    image: LabelledImage
    tile: Mapping[str, Any] | None = None
    raster: Mapping[str, Any] | None = None
    metres: float | None = None

    def place(self) -> tuple[str, int, int, int, int]:
        """Return the source, and the window x0, y0, x1, y1 of it that this picture shows."""
        image = self.image
        if self.tile is not None:
            source, x, y = self.tile["source_id"], self.tile["x"], self.tile["y"]
        else:
            stem = Path(image.file_name).stem
            try:
                source, _, x, y = parse_tile_name(stem)
            except ValueError:  # not a tile
                source, x, y = stem, 0, 0
        return source, x, y, x + image.width, y + image.height

    def read(self) -> np.ndarray:
        """Read the pixels as the models see them.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it cannot be decoded.
        """
        if self.raster is not None:
            size = {"height": self.image.height, "width": self.image.width}
            record = {"file_name": self.path, "raster": self.raster, **size}
            pixels = RasterWindows().read(record | ({"tile": self.tile} if self.tile else {}))
            return np.ascontiguousarray(pixels[:, :, :3]).astype(np.uint8)

        pixels = read_image(self.path)
        if self.tile is None or not self.tile.get("virtual"):
            return pixels
        _, *window = self.place()
        return crop_window(pixels, np.array(window))


@dataclass(eq=False)
class DataSet:
    """A data set to examine.

    Attributes:
        name: name for messages.
        pictures: its images.
        classes: its class list; empty if it has none.
        report: what its reader found.
        cuts_objects: objects may leave their images, as those of tiles do.
        is_subset: other classes than those of the list are left out on purpose.
    """

    name: str
    pictures: list[Picture]
    classes: tuple[str, ...]
    report: LabelReport
    cuts_objects: bool = False
    is_subset: bool = False
