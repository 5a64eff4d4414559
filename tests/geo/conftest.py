"""Rasters with known places on the ground, drawn in a moment."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

try:
    import pyogrio  # noqa: F401
    import pyproj  # noqa: F401
    import rasterio
    from rasterio.transform import Affine
except ImportError:  # without the extra "geo", nothing of this folder can run
    collect_ignore_glob = ["test_*.py"]

HEIGHT, WIDTH = 240, 320
METRES = 0.5
DEGREES = 5e-6

NAMES = (
    "north_up",
    "turned",
    "sheared",
    "geographic_60",
    "utm_south",
    "web_mercator",
    "polar",
    "gcps",
    "none",
)


def transform_at(name: str) -> tuple[str | None, Affine]:
    """Coordinate system of a place, and transform of its pixels."""
    upright = Affine.scale(METRES, -METRES)
    hamburg = Affine.translation(565000, 5933000)
    return {
        "north_up": ("EPSG:32632", hamburg @ upright),
        "turned": ("EPSG:32632", hamburg @ Affine.rotation(20) @ upright),
        "sheared": ("EPSG:32632", hamburg @ Affine.shear(25, 0) @ upright),
        "geographic_60": ("EPSG:4326", Affine(DEGREES, 0, 24.9, 0, -DEGREES, 60.0)),
        "utm_south": ("EPSG:32736", Affine(10, 0, 300000, 0, -10, 6690000)),
        "web_mercator": ("EPSG:3857", Affine(METRES, 0, 2064000, 0, -METRES, 7259000)),
        "polar": ("EPSG:3413", Affine(METRES, 0, -250000, 0, -METRES, -2200000)),
        "gcps": ("EPSG:4326", Affine(DEGREES, 1e-6, 24.9, 5e-7, -DEGREES, 60.0)),
        "none": (None, Affine.identity()),
    }[name]


def write_raster(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Write (H, W, B) pixels; ``profile`` goes to rasterio, ``gcps`` and ``description`` too."""
    gcps, descriptions = profile.pop("gcps", None), profile.pop("descriptions", None)
    driver = profile.pop("driver", "GTiff")
    height, width, count = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver=driver,
            height=height,
            width=width,
            count=count,
            dtype=pixels.dtype,
            **profile,
        ) as dataset:
            dataset.write(pixels.transpose(2, 0, 1))
            if gcps:
                dataset.gcps = gcps
            for number, text in enumerate(descriptions or (), 1):
                dataset.set_band_description(number, text)
    return path


@pytest.fixture
def write() -> Callable[..., Path]:
    """Function that writes a raster of given pixels."""
    return write_raster


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, str | None, Affine]:
    """Name, file, coordinate system and true transform of a grey raster somewhere on Earth."""
    crs, transform = transform_at(request.param)
    profile: dict = {"crs": crs, "transform": transform}
    if request.param == "gcps":
        corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH), (HEIGHT / 2, WIDTH / 3)]
        points = [
            rasterio.control.GroundControlPoint(row, col, *(transform @ (col, row)), 0.0)
            for row, col in corners
        ]
        profile = {"gcps": (points, rasterio.crs.CRS.from_string(crs))}
    elif crs is None:
        profile = {}
    pixels = np.full((HEIGHT, WIDTH, 1), 90, np.uint8)
    return request.param, write_raster(tmp_path / "scene.tif", pixels, **profile), crs, transform


@pytest.fixture(scope="session")
def sen2ships(repository: Path) -> Path:
    """Folder with real Sentinel-2 ports; the test is skipped where it is absent."""
    root = os.environ.get("RSD2_REAL_DATA") or repository.parent / "shared" / "data" / "real"
    folder = Path(root) / "sen2ships"
    if not folder.is_dir():
        pytest.skip(f"no real scenes at {folder}; name their parent in RSD2_REAL_DATA")
    return folder
