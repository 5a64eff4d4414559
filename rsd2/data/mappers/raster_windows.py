"""Reads windows of rasters for the mappers exactly as prediction reads them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from rsd2.geo.grid import Grid
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster

_OPEN_SCENES = 16

_logger = logging.getLogger(__name__)


class RasterWindows:
    """Reads windows of scenes, and keeps the last scenes open with their measured ranges.

    Args:
        radiometry: rule that turns numbers into colours; None takes the rule of each dataset dict.
    """

    def __init__(self, radiometry: Radiometry | None = None) -> None:
        self.radiometry = radiometry
        self._open: OrderedDict[tuple[str, ...], tuple[Raster, Radiometry]] = OrderedDict()

    def read(self, dataset_dict: Mapping[str, Any]) -> np.ndarray:
        """Read the window of a tile, or a whole scene.

        Args:
            dataset_dict: a dict of ``load_scenes``, or one of a single raster: ``file_name``,
                ``height``, ``width``; ``tile`` for tiles.

        Returns:
            (H, W, B) in 0 to 255, uint8 or float32; the padding colour where there are no data.

        Raises:
            FileNotFoundError: if the raster is missing.
            ValueError: if it cannot be read, or has another size than the dict says.
        """
        described = dataset_dict.get("raster") or {"paths": [dataset_dict["file_name"]]}
        raster, radiometry = self._scene(described)
        grid = _grid_of(dataset_dict, raster)
        if (raster.height, raster.width) != (grid.scene_height, grid.scene_width):
            raise ValueError(
                f"Scene {raster.name} has {raster.width} x {raster.height} pixels, but its dataset "
                f"says {grid.scene_width} x {grid.scene_height}; the file has changed since "
                "the dataset was read. Register the dataset anew."
            )

        tile = dataset_dict.get("tile") or {"y": 0, "x": 0, **_size_of(dataset_dict)}
        place = (tile["y"], tile["x"], tile["height"], tile["width"])
        return raster.read_window(*place, radiometry, grid).pixels

    def _scene(self, described: Mapping[str, Any]) -> tuple[Raster, Radiometry]:
        """Return the opened scene and its fixed radiometry."""
        key = tuple(described["paths"])
        scene = self._open.pop(key, None)
        if scene is None:
            raster = Raster(list(key), crs=described.get("crs"))
            scene = (raster, self._fixed(raster, described))

        # The last key is the most recent; the first one is the least recent and is closed.
        self._open[key] = scene
        while len(self._open) > _OPEN_SCENES:
            self._open.popitem(last=False)[1][0].close()
        return scene

    def _fixed(self, raster: Raster, described: Mapping[str, Any]) -> Radiometry:
        """Return the mapper's rule, or else the dataset's, with the ranges of this scene."""
        of_data = described.get("radiometry")
        rule = self.radiometry
        # The dataset has measured this very rule; percentiles take a pass over the scene.
        if rule is None or rule.to_dict() == of_data:
            if "measured" in described:
                return Radiometry.from_dict(described["measured"])
            rule = rule or Radiometry()

        fixed = rule.measure(raster)
        if not rule.is_fixed:
            _logger.info("%s: %s become 0 and %s 255", raster.name, fixed.low, fixed.high)
        return fixed


def _size_of(dataset_dict: Mapping[str, Any]) -> dict[str, int]:
    return {name: dataset_dict[name] for name in ("height", "width")}


def _grid_of(dataset_dict: Mapping[str, Any], raster: Raster) -> Grid:
    """Return the grid of pixels to which the boxes of a dict refer."""
    if "raster" in dataset_dict:
        return Grid(**dataset_dict["raster"]["grid"])

    # A plain image: its own pixels, whose size the dict or tile states.
    tile = dataset_dict.get("tile")
    if tile is None:
        height, width = _size_of(dataset_dict).values()
    else:
        height = tile.get("source_height", raster.height)
        width = tile.get("source_width", raster.width)
    return Grid(height, width, height, width)
