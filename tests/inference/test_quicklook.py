"""The small picture of a scene: boxes lie where their objects are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyproj")

from rsd2.data.drawing.boxes import class_color  # noqa: E402
from rsd2.geo import Radiometry, Raster  # noqa: E402
from rsd2.inference.quicklook import draw_quicklook  # noqa: E402


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_boxes_surround_their_objects_at_any_size(tmp_path: Path, count: int) -> None:
    pixels = np.full((count, 400, 600), 40, np.uint16)
    pixels[:, 100:200, 300:450] = 200
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 400, "width": 600, "count": count, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)

    polygon = np.array([[(300, 100), (450, 100), (450, 200), (300, 200)]])
    bands = tuple(range(1, count + 1))
    rule = Radiometry(bands=bands, scaling="range", low=0, high=255, precision="float32")
    with Raster(path) as raster:
        picture = draw_quicklook(raster, rule, polygon, [4], max_size=150)
    assert picture.shape == (100, 150, 3)
    assert picture[35, 95].tolist() == [200] * 3 and picture[80, 20].tolist() == [40] * 3
    for x, y in ((75, 35), (112, 35), (95, 25), (95, 50)):
        patch = picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
        assert np.abs(patch - class_color(4)).sum(axis=1).min() < 120


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_small_scene_without_boxes_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 60)).astype(np.uint8)
    profile = {"driver": "GTiff", "height": 40, "width": 60, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as dataset:
        dataset.write(pixels)
    with Raster(tmp_path / "a.tif") as raster:
        picture = draw_quicklook(raster, Radiometry(), np.zeros((0, 4, 2)), [])
    np.testing.assert_array_equal(picture, pixels.transpose(1, 2, 0))
