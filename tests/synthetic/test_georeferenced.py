"""Generated scenes with a place on Earth: where they say, reproducible, in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
pyproj = pytest.importorskip("pyproj")

from rsd2.geo import Radiometry, Raster  # noqa: E402
from rsd2.geo.labels import read_scene_labels  # noqa: E402
from rsd2.geo.vector_files import read_metadata  # noqa: E402
from rsd2.synthetic import SceneConfig, draw_scene  # noqa: E402
from rsd2.synthetic.georeferenced import (  # noqa: E402
    SIXTEEN_BIT_LOW,
    SIXTEEN_BIT_STEP,
    PlaceConfig,
    write_georeferenced_scenes,
)

TILES = SceneConfig(size=64, scale=0.8, empty_fraction=0.0)
PLACE = PlaceConfig(size=(160, 200))


def read_all(path: Path, radiometry: Radiometry) -> np.ndarray:
    """Read a whole scene."""
    with Raster(path) as raster:
        return raster.read_window(0, 0, raster.height, raster.width, radiometry).pixels


def test_a_scene_is_the_mosaic_of_its_tiles_with_their_labels(tmp_path: Path) -> None:
    folder = write_georeferenced_scenes(tmp_path / "set", 1, TILES, PLACE, seed=5, progress=False)
    image = read_all(folder / "S000000.tif", Radiometry())
    first, last = draw_scene(TILES, 5, 0), draw_scene(TILES, 5, 11)
    np.testing.assert_array_equal(image[:64, :64], first.image)
    np.testing.assert_array_equal(image[128:, 192:], last.image[:32, :8])

    with Raster(folder / "S000000.tif") as raster:
        labels = read_scene_labels(folder / "S000000.gpkg", raster.georeference, (160, 200))
    whole = [item for item in first.objects if (item.poly > 0).all() and (item.poly < 64).all()]
    assert whole
    for item in whole:
        gaps = np.abs(labels.polygons - item.poly).max(axis=(1, 2))
        assert gaps.min() < 1e-3 and labels.names[gaps.argmin()] == item.name
    record = json.loads((folder / "scenes.json").read_text())
    assert record["complete"] and sum(record["objects"].values()) == len(labels)
    assert read_metadata(folder / "S000000.gpkg")["seed"] == 5


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude", "rotation"),
    [
        ("EPSG:32632", 9.9, 53.5, 0.0),
        ("EPSG:4326", 24.9, 60.0, 0.0),
        ("EPSG:3857", 24.9, 60.0, 20.0),
        ("EPSG:32736", 33.0, -30.0, -70.0),
    ],
)
def test_pixels_are_square_on_the_ground_everywhere(
    tmp_path: Path, crs: str, longitude: float, latitude: float, rotation: float
) -> None:
    place = PlaceConfig(
        size=(64, 128), crs=crs, longitude=longitude, latitude=latitude, gsd=0.5, rotation=rotation
    )
    folder = write_georeferenced_scenes(tmp_path, 2, TILES, place, progress=False)
    geod = pyproj.Geod(ellps="WGS84")
    with Raster(folder / "S000000.tif") as raster, Raster(folder / "S000001.tif") as second:
        assert raster.pixel_size == pytest.approx((0.5, 0.5), rel=1e-4)
        corners = raster.georeference.to_longitude_latitude(np.array([(0.0, 0), (0, 64), (128, 0)]))
        neighbour = second.georeference.to_longitude_latitude(np.zeros(2))
    np.testing.assert_allclose(corners[0], (longitude, latitude), atol=1e-9)
    assert geod.inv(*corners[1], *corners[0])[0] == pytest.approx(rotation, abs=0.01)
    assert geod.inv(*corners[0], *corners[2])[2] == pytest.approx(64, rel=1e-4)
    assert geod.inv(*corners[0], *neighbour)[2] == pytest.approx(1.1 * 64, rel=1e-4)


def test_files_do_not_depend_on_layout_processes_or_interruptions(tmp_path: Path) -> None:
    place = PlaceConfig(size=(128, 128))
    first = write_georeferenced_scenes(tmp_path / "a", 2, TILES, place, progress=False)
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    again = write_georeferenced_scenes(tmp_path / "b", 1, TILES, place, progress=False)
    (again / "S000001.tif").write_bytes(b"half a file")
    write_georeferenced_scenes(again, 2, TILES, place, num_workers=2, progress=False)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files
    striped = PlaceConfig(size=(128, 128), tiled=False)
    other = write_georeferenced_scenes(tmp_path / "c", 1, TILES, striped, progress=False)
    np.testing.assert_array_equal(
        read_all(other / "S000000.tif", Radiometry()), read_all(first / "S000000.tif", Radiometry())
    )
    with rasterio.open(other / "S000000.tif") as dataset:
        assert dataset.block_shapes[0][1] == 128 and not dataset.profile["tiled"]


def test_sixteen_bits_hold_the_same_scene(tmp_path: Path) -> None:
    eight = write_georeferenced_scenes(tmp_path / "a", 1, TILES, PLACE, progress=False)
    deep = PlaceConfig(size=PLACE.size, sixteen_bit=True)
    sixteen = write_georeferenced_scenes(tmp_path / "b", 1, TILES, deep, progress=False)
    high = SIXTEEN_BIT_LOW + 255 * SIXTEEN_BIT_STEP
    rule = Radiometry(scaling="range", low=SIXTEEN_BIT_LOW, high=high)
    np.testing.assert_array_equal(
        read_all(sixteen / "S000000.tif", rule), read_all(eight / "S000000.tif", Radiometry())
    )


def test_few_tiles_are_repeated(tmp_path: Path) -> None:
    place = PlaceConfig(size=(256, 256), num_tiles=2)
    folder = write_georeferenced_scenes(tmp_path, 1, TILES, place, progress=False)
    image = read_all(folder / "S000000.tif", Radiometry())
    parts = {image[y : y + 64, x : x + 64].tobytes() for y in (0, 64, 128, 192) for x in (0, 64)}
    assert len(parts) == 2


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    cases = [
        (lambda: PlaceConfig(size=(10, 500)), "32 pixels or more"),
        (lambda: PlaceConfig(gsd=0), "gsd must be positive"),
        (lambda: PlaceConfig(latitude=90), "latitude in"),
        (lambda: PlaceConfig(num_tiles=0), "at least 1"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="tiles must be square"):
        write_georeferenced_scenes(tmp_path / "oblong", 1, SceneConfig(size=(64, 80)), PLACE)
    far = PlaceConfig(size=(64, 64), longitude=99.0, latitude=0.0)
    with pytest.raises(ValueError, match="99 E, 0 N is no place of EPSG:32632"):
        write_georeferenced_scenes(tmp_path / "far", 1, TILES, far, progress=False)
    write_georeferenced_scenes(tmp_path / "a", 1, TILES, PLACE, progress=False)
    with pytest.raises(FileExistsError, match="other parameters.*seed"):
        write_georeferenced_scenes(tmp_path / "a", 1, TILES, PLACE, seed=1, progress=False)
