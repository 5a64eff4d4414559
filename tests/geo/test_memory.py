"""Memory that reading and writing of large scenes take, whatever their layout."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import resource, sys
    import numpy as np
    import rasterio
    from rasterio.windows import Window
    from rsd2.geo import Radiometry, Raster
    from rsd2.geo.libraries import bounded_cache

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    import shapely, pyproj, rasterio.transform
    before, side = peak(), 20_000
    tiled = dict(tiled=True, blockxsize=512, blockysize=512) if sys.argv[2] == "tiled" else {}
    noise = np.random.default_rng(0).integers(0, 255, (3, 500, side), dtype=np.uint8)
    with bounded_cache(), rasterio.open(
        sys.argv[1], "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8",
        crs="EPSG:32632", transform=rasterio.Affine(0.5, 0, 565000, 0, -0.5, 5933000),
        interleave="pixel", sparse_ok=True, **tiled,
    ) as dataset:
        # The rest of the file is a hole, which costs time and disk to nobody.
        for top in (0, 500, 1000, 10_000, 19_500):
            dataset.write(noise, window=Window(0, top, side, 500))
    del noise

    with Raster(sys.argv[1]) as raster:
        rule = Radiometry(scaling="percentile").measure(raster)
        for top in (*range(0, 2000, 824), 9_600, 10_424, 19_000):
            for left in range(0, side, 824):
                raster.read_window(top, left, 1024, 1024, rule)
        grid = raster.grid(gsd=1.0)
        for left in range(0, grid.width, 824):
            raster.read_window(0, left, 1024, 1024, rule, grid)
        raster.read_overview(1000, rule)
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="reads the peak of a process as Unix tells it")
@pytest.mark.parametrize("layout", ["tiled", "striped"])
def test_a_large_scene_is_read_in_bounded_memory(tmp_path: Path, layout: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "large.tif"), layout],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300
