"""Windows of rasters of every layout: equal to the whole, bounded, and clear when broken."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling

from rsd2.geo import Radiometry, RadiometryError, Raster, RasterError
from rsd2.io.padding import PAD_COLOR

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

PLAIN = Radiometry()
UTM = {"crs": "EPSG:32632", "transform": (0.5, 0, 565000, 0, -0.5, 5933000)}


@pytest.fixture
def noise() -> np.ndarray:
    """Pixels (H, W, 3) that differ everywhere."""
    return np.random.default_rng(0).integers(0, 256, (120, 150, 3)).astype(np.uint8)


LAYOUTS = {
    "tiled.tif": {"tiled": True, "blockxsize": 64, "blockysize": 32, "compress": "deflate"},
    "striped.tif": {"compress": "lzw", "blockysize": 7},
    "planes.tif": {"interleave": "band"},
    "cog.tif": {"driver": "COG"},
    "lossless.jp2": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"},
    "scene.png": {"driver": "PNG"},
    "scene.img": {"driver": "HFA"},
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_windows_of_every_layout_equal_the_pixels(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray, name: str
) -> None:
    path = write(tmp_path / name, noise, **LAYOUTS[name])
    with Raster(path) as raster:
        assert (raster.height, raster.width, raster.num_bands) == (120, 150, 3)
        for top, left, height, width in ((0, 0, 120, 150), (13, 57, 64, 33), (119, 149, 1, 1)):
            window = raster.read_window(top, left, height, width, PLAIN)
            np.testing.assert_array_equal(
                window.pixels, noise[top : top + height, left : left + width]
            )
            assert window.valid.all()


def test_windows_that_leave_the_scene_are_padded(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    with Raster(write(tmp_path / "a.tif", noise)) as raster:
        window = raster.read_window(-10, 140, 40, 30, PLAIN)
        outside = raster.read_window(500, 0, 4, 5, PLAIN)
    np.testing.assert_array_equal(window.pixels[10:, :10], noise[:30, 140:])
    assert window.valid[10:, :10].all() and window.valid.sum() == 300
    assert (window.pixels[~window.valid] == PAD_COLOR).all()
    assert not outside.valid.any() and (outside.pixels == PAD_COLOR).all()


def test_a_virtual_mosaic_is_a_scene(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    write(tmp_path / "left.tif", noise[:, :80])
    write(tmp_path / "right.tif", noise[:, 80:])
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
        f"<SourceBand>BAND</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="120"/>'
        f'<DstRect xOff="{x}" yOff="0" xSize="{size}" ySize="120"/></SimpleSource>'
        for name, x, size in (("left", 0, 80), ("right", 80, 70))
    )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}">{sources.replace("BAND", str(k))}'
        "</VRTRasterBand>"
        for k in (1, 2, 3)
    )
    path = tmp_path / "mosaic.vrt"
    path.write_text(f'<VRTDataset rasterXSize="150" rasterYSize="120">{bands}</VRTDataset>')
    with Raster(path) as raster:
        np.testing.assert_array_equal(
            raster.read_window(5, 60, 50, 50, PLAIN).pixels, noise[5:55, 60:110]
        )


def test_nodata_masks_and_alpha_say_where_there_are_data(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    hole = np.zeros((120, 150), bool)
    hole[30:60, 20:90] = True
    zero = np.where(hole[..., None], 0, np.maximum(noise, 1))
    paths = [write(tmp_path / "nodata.tif", zero, nodata=0)]
    alpha = np.concatenate([noise, np.where(hole, 0, 255).astype(np.uint8)[..., None]], axis=2)
    paths.append(write(tmp_path / "alpha.tif", alpha, photometric="RGB", alpha="YES"))
    paths.append(write(tmp_path / "mask.tif", noise))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(paths[-1], "r+") as dataset:
        dataset.write_mask(~hole)
    for path in paths:
        with Raster(path) as raster:
            assert raster.band_numbers() == (1, 2, 3)
            window = raster.read_window(10, 10, 100, 100, PLAIN)
        np.testing.assert_array_equal(window.valid, ~hole[10:110, 10:110])
        assert (window.pixels[~window.valid] == PAD_COLOR).all()
    own = Radiometry(nodata=0)
    with Raster(write(tmp_path / "silent.tif", zero)) as raster:
        assert raster.read_window(0, 0, 120, 150, PLAIN).valid.all()
        np.testing.assert_array_equal(raster.read_window(0, 0, 120, 150, own).valid, ~hole)


def test_bands_are_found_by_number_name_and_colour(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    five = np.concatenate([noise, noise[..., :2] // 2], axis=2)
    names = ("blue", "green", "red", "nir", "pan")
    path = write(tmp_path / "five.tif", five, descriptions=names, photometric="MINISBLACK")
    with Raster(path) as raster:
        assert raster.band_numbers([3, 2, 1]) == raster.band_numbers(("RED", "Green", "blue"))
        window = raster.read_window(4, 5, 20, 30, Radiometry(bands=("nir", 1)))
        np.testing.assert_array_equal(window.pixels, five[4:24, 5:35][..., [3, 0]])
        with pytest.raises(RasterError, match=r"1 \(blue\), .*name the bands"):
            raster.read_window(0, 0, 5, 5, PLAIN)
        for band in (0, 6, "swir"):
            with pytest.raises(RasterError, match="no single band"):
                raster.band_numbers([band])
    with rasterio.open(path, "r+") as dataset:
        kinds = ("blue", "green", "red", "undefined", "undefined")
        dataset.colorinterp = [ColorInterp[kind] for kind in kinds]
    with Raster(path) as raster:
        assert raster.band_numbers() == (3, 2, 1)
    with Raster(write(tmp_path / "grey.tif", noise[..., :1])) as raster:
        window = raster.read_window(0, 0, 120, 150, PLAIN)
        np.testing.assert_array_equal(window.pixels, np.repeat(noise[..., :1], 3, axis=2))


def test_colour_tables_and_complex_numbers_are_refused(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    path = write(tmp_path / "palette.tif", noise[..., :1])
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 255, 0, 255)})
    with Raster(path) as raster, pytest.raises(RasterError, match="colour table.*-expand rgb"):
        raster.read_window(0, 0, 5, 5, PLAIN)
    path = write(tmp_path / "radar.tif", noise[..., :1].astype(np.complex64))
    with Raster(path) as raster, pytest.raises(RasterError, match="complex numbers"):
        Radiometry(scaling="percentile").measure(raster)


def test_several_files_are_one_scene(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    paths = [
        write(tmp_path / f"port_B{k + 2:02d}_10m.tif", noise[..., k : k + 1], **UTM)
        for k in range(3)
    ]
    with Raster(paths) as raster:
        assert raster.descriptions == ["B02", "B03", "B04"]
        window = raster.read_window(7, 9, 60, 70, Radiometry(bands=("B04", "B03", "B02")))
        np.testing.assert_array_equal(window.pixels, noise[7:67, 9:79, ::-1])
        assert raster.georeference.kind == "transform"
    small = write(tmp_path / "port_B05_20m.tif", noise[::2, ::2, :1], **UTM)
    with pytest.raises(RasterError, match="60 x 75 and 120 x 150 pixels.*gdalbuildvrt"):
        Raster([*paths, small])
    moved = write(tmp_path / "port_B08_10m.tif", noise[..., :1], crs="EPSG:32633")
    with pytest.raises(RasterError, match="another place on the ground"):
        Raster([*paths, moved])
    with pytest.raises(RasterError, match="at least one file"):
        Raster([])


@pytest.mark.parametrize("scale", [0.21, 0.5, 0.73, 1.0, 2.0, 3.1])
@pytest.mark.parametrize("overviews", [False, True])
def test_windows_of_a_resampled_scene_equal_the_whole(
    write: Callable[..., Path], tmp_path: Path, scale: float, overviews: bool
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (230, 300, 3)).astype(np.uint8)
    path = write(tmp_path / "a.tif", pixels, tiled=True, blockxsize=32, blockysize=32, **UTM)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
    with Raster(path) as raster:
        grid = raster.grid(gsd=0.5 / scale)
        assert (grid.height, grid.width) == pytest.approx((230 * scale, 300 * scale), abs=0.6)
        whole = raster.read_window(0, 0, grid.height, grid.width, PLAIN, grid).pixels.astype(int)
        for share in (0.1, 0.4, 0.63):
            top, left = int(share * grid.height), int(share * grid.width)
            height, width = grid.height // 3, grid.width // 4
            part = raster.read_window(top, left, height, width, PLAIN, grid).pixels
            expected = whole[top : top + height, left : left + width]
            assert abs(part - expected).max() <= 1  # the rounding of a mean


def test_a_mark_lies_where_the_grid_says(write: Callable[..., Path], tmp_path: Path) -> None:
    # Pixels of 0.56 by 1.11 metres: on the grid they are square.
    pixels = np.zeros((200, 300, 1), np.uint8)
    pixels[80:120, 200:240] = 255
    place = {"crs": "EPSG:4326", "transform": (1e-5, 0, 24.9, 0, -1e-5, 60.0)}
    with Raster(write(tmp_path / "a.tif", pixels, **place)) as raster:
        grid = raster.grid(gsd=0.4)
        image = raster.read_window(0, 0, grid.height, grid.width, PLAIN, grid).pixels[..., 0]
        sizes = raster.pixel_size
    rows, columns = np.nonzero(image > 127)
    corners = np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)])
    np.testing.assert_allclose(grid.to_scene(corners), [(200, 80), (240, 120)], atol=0.75)
    np.testing.assert_allclose(grid.from_scene(grid.to_scene(corners)), corners)
    np.testing.assert_allclose(grid.scale, np.array(sizes) / 0.4, rtol=0.01)
    assert sizes[1] / sizes[0] == pytest.approx(2.0, rel=0.01)


def test_the_grid_refuses_what_it_cannot_know(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    with Raster(write(tmp_path / "a.tif", noise)) as raster:
        assert raster.grid().is_scene and raster.grid(scale=2).width == 300
        with pytest.raises(ValueError, match="without coordinates cannot be read at 0.5 m"):
            raster.grid(gsd=0.5)
        with pytest.raises(ValueError, match="must be positive"):
            raster.grid(scale=0)


def test_an_overview_and_a_sample_of_a_large_scene(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.linspace(0, 60000, 3000)[:, None, None] + np.zeros((1, 900, 1))
    path = write(tmp_path / "ramp.tif", ramp.astype(np.uint16), **UTM)
    rule = Radiometry(scaling="percentile", percentiles=(5, 95))
    with Raster(path) as raster:
        whole = rule.measure(raster)
        monkeypatch.setattr("rsd2.geo.raster._READ_WHOLE", 1000)
        in_places = rule.measure(raster)
        values, valid = raster.read_sample((1,))
        assert values.size < 600_000 and valid.all()
        window, grid = raster.read_overview(150, whole)
    for fixed in (whole, in_places):
        assert fixed.low[0] == pytest.approx(3000, abs=600)
        assert fixed.high[0] == pytest.approx(57000, abs=600)
    assert window.pixels.shape == (150, 45, 3) and (grid.height, grid.width) == (150, 45)
    assert (np.diff(window.pixels[:, 20, 0].astype(int)) >= 0).all()


def _window_sum(raster: Raster) -> tuple[int, float]:
    window = raster.read_window(3, 3, 50, 50, PLAIN)
    return id(raster._datasets()[0]), float(window.pixels.sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_opens_files_of_its_own(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray, method: str
) -> None:
    with Raster(write(tmp_path / "a.tif", noise, **UTM)) as raster:
        handle, total = _window_sum(raster)
        copy = pickle.loads(pickle.dumps(raster))
        assert _window_sum(copy)[1] == total and copy.georeference == raster.georeference
        copy.close()
        with multiprocessing.get_context(method).Pool(2) as pool:
            others = pool.map(_window_sum, [raster] * 4)
        assert {other[1] for other in others} == {total}
        assert _window_sum(raster) == (handle, total)


def test_broken_files_are_one_sentence(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    with pytest.raises(FileNotFoundError, match="There is no raster .*missing.tif"):
        Raster(tmp_path / "missing.tif")
    text = tmp_path / "notes.tif"
    text.write_text("not an image")
    with pytest.raises(RasterError, match="notes.tif is not a raster that GDAL can open"):
        Raster(text)

    for name, layout in (("strips", {}), ("tiles", {"tiled": True, "compress": "deflate"})):
        path = write(tmp_path / f"{name}.tif", np.tile(noise, (5, 5, 1)), **layout)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        try:
            with Raster(path) as raster:
                raster.read_window(500, 10, 100, 100, PLAIN)
        except RasterError as error:
            assert f"{name}.tif" in str(error) and "\n" not in str(error)
            assert "truncated" in str(error) or "is not a raster" in str(error)
        else:
            pytest.fail("a truncated file was read as if it were whole")


def test_a_truncated_file_names_the_window(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    path = write(tmp_path / "a.tif", np.tile(noise, (5, 5, 1)))
    with rasterio.open(path) as dataset:
        assert dataset.height == 600
    content = path.read_bytes()
    # The directory of a file that GDAL writes in one go stands in front of the pixels.
    path.write_bytes(content[: len(content) * 2 // 3])
    with Raster(path) as raster:
        np.testing.assert_array_equal(
            raster.read_window(0, 0, 90, 90, PLAIN).pixels, noise[:90, :90]
        )
        with pytest.raises(RasterError, match="rows 500 to 600, columns 20 to 120 .*truncated"):
            raster.read_window(500, 20, 100, 100, PLAIN)


def test_files_without_bands_name_their_parts(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    path = tmp_path / "container.gpkg"
    for table, options in (("first", {}), ("second", {"APPEND_SUBDATASET": "YES"})):
        write(path, noise[..., :1], driver="GPKG", RASTER_TABLE=table, **UTM, **options)
    with pytest.raises(RasterError, match="has no bands of its own; name one .*first"):
        Raster(path)
    with Raster(f"GPKG:{path}:second") as raster:
        assert raster.height == 120


def test_the_file_without_coordinates_has_a_warning_for_rational_polynomials(
    write: Callable[..., Path], tmp_path: Path, noise: np.ndarray
) -> None:
    linear = [0.0] * 20
    numerators = [[*linear], [*linear]]
    numerators[0][2], numerators[1][1] = 1.0, 1.0  # line follows latitude, sample longitude
    rpcs = rasterio.rpc.RPC(
        height_off=100.0, height_scale=50.0, lat_off=45.0, lat_scale=-0.01, long_off=9.0,
        long_scale=0.01, line_off=60.0, line_scale=60.0, samp_off=75.0, samp_scale=75.0,
        line_num_coeff=numerators[0], line_den_coeff=[1.0, *[0.0] * 19],
        samp_num_coeff=numerators[1], samp_den_coeff=[1.0, *[0.0] * 19],
    )  # fmt: skip
    path = write(tmp_path / "raw.tif", noise, rpcs=rpcs)
    with pytest.warns(UserWarning, match="not rectified.*RPC_DEM"), Raster(path) as raster:
        georeference = raster.georeference
    assert georeference.kind == "rpcs" and "not rectified" in georeference.note
    center = georeference.to_longitude_latitude(np.array([75.0, 60.0]))
    np.testing.assert_allclose(center, [9.0, 45.0], atol=2e-4)
    np.testing.assert_allclose(georeference.from_crs(center), [75.0, 60.0], atol=1e-2)


def test_works_without_the_libraries_until_they_are_needed() -> None:
    program = """
        import sys
        for name in ("rasterio", "pyogrio", "pyproj"):
            sys.modules[name] = None  # importing it fails
        import rsd2.geo, rsd2.inference.sliding_window
        from rsd2.geo import Radiometry, Raster
        import numpy as np
        assert Radiometry().apply(np.zeros((2, 2, 3), np.uint8)).shape == (2, 2, 3)
        try:
            Raster("a.tif")
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "needs rasterio" in done.stdout and "rsd2[geo]" in done.stdout


def test_real_band_files_are_the_scene(sen2ships: Path) -> None:
    paths = [sen2ships / "bands" / f"busan_B{k:02d}.tif" for k in (2, 3, 4, 8)]
    rule = Radiometry(bands=("B04", "B03", "B02"), scaling="range", low=0, high=10000)
    with Raster(paths) as bands, Raster(sen2ships / "test" / "busan.tif") as scene:
        assert bands.descriptions == ["B02", "B03", "B04", "B08"]
        assert scene.descriptions == ["B04", "B03", "B02"]
        np.testing.assert_array_equal(
            bands.read_window(100, 200, 256, 256, rule).pixels,
            scene.read_window(100, 200, 256, 256, rule).pixels,
        )
        assert bands.georeference.to_crs(np.zeros(2)).tolist() == pytest.approx(
            scene.georeference.to_crs(np.zeros(2)).tolist()
        )
        along, across = scene.pixel_size
        assert along == pytest.approx(10 * np.cos(np.radians(35.1)), rel=0.01)
        with pytest.raises(RadiometryError, match="uint16"):
            Radiometry().measure(scene)


def test_a_zero_in_one_band_of_a_real_scene_is_dark_water_and_no_gap(sen2ships: Path) -> None:
    rule = Radiometry(scaling="percentile", nodata=0)
    with Raster(sen2ships / "test" / "honolulu.tif") as raster:
        window = raster.read_window(0, 0, raster.height, raster.width, rule.measure(raster))
        with rasterio.open(raster.name) as dataset:
            zeros = dataset.read() == 0
    assert zeros.any(axis=0).sum() > 4000 and not zeros.all(axis=0).any()
    assert window.valid.all()
    assert (window.pixels[zeros[0], 0] == 0).all()
