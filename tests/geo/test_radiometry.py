"""The rule that turns numbers into channels: alike everywhere, and never silent black."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall, instantiate
from hypothesis import given
from hypothesis import strategies as st

from rsd2.geo import Radiometry, RadiometryError, Raster
from rsd2.io.padding import PAD_COLOR


def test_eight_bit_numbers_stay_and_gaps_are_padded() -> None:
    values = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    valid = np.ones((3, 3), bool)
    valid[1, 2] = False
    channels = Radiometry().apply(values, valid)
    assert channels.dtype == np.uint8 and channels is not values
    assert channels[1, 2].tolist() == list(PAD_COLOR)
    np.testing.assert_array_equal(channels[valid], values[valid])
    assert Radiometry(fill=(1, 2, 3)).apply(values, valid)[1, 2].tolist() == [1, 2, 3]
    assert Radiometry(fill=0).apply(values[..., :2], valid)[1, 2].tolist() == [0, 0]
    with pytest.raises(ValueError, match="fill holds 3 numbers, but there are 2 bands"):
        Radiometry(fill=(1, 2, 3)).apply(values[..., :2], valid)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("precision", ["uint8", "float32"])
def test_a_range_is_linear_between_its_ends(dtype: str, precision: str) -> None:
    rule = Radiometry(scaling="range", low=(20, 40), high=(120, 140), precision=precision)
    values = np.array([[[0, 0], [20, 40], [70, 90], [120, 140], [127, 127]]], dtype=dtype)
    channels = rule.apply(values)
    assert channels.dtype == precision
    want = np.array([[0, 0], [0, 0], [127.5, 127.5], [255, 255], [255, 221.85]])
    if precision == "uint8":
        want = np.rint(want)
    np.testing.assert_allclose(channels[0], want, atol=1e-4)


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=30),
    st.floats(0, 30000),
    st.floats(1, 30000),
    st.floats(0.3, 3),
)
def test_integers_and_floats_get_the_same_channels(
    numbers: list[int], low: float, span: float, gamma: float
) -> None:
    rule = Radiometry(scaling="range", low=low, high=low + span, gamma=gamma)
    values = np.array(numbers, dtype=np.uint16)[None, :, None]
    channels = rule.apply(values)
    np.testing.assert_array_equal(channels, rule.apply(values.astype(np.float64)))
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(channels.ravel()[order].astype(int)) >= 0).all()


def test_gamma_brightens_the_middle_only() -> None:
    values = np.array([[[0], [64], [255]]], np.uint8)
    found = Radiometry(gamma=2.0, precision="float32").apply(values).ravel()
    np.testing.assert_allclose(found, [0, 255 * (64 / 255) ** 0.5, 255], rtol=1e-5)


def test_numbers_that_are_not_finite_are_no_data() -> None:
    rule = Radiometry(scaling="range", low=0, high=1, fill=7)
    values = np.array([[[0.5, 0.5], [np.nan, 0.5], [0.5, np.inf]]], np.float32)
    assert rule.apply(values)[0].tolist() == [[128, 128], [7, 7], [7, 7]]


def test_sixteen_bits_without_a_rule_are_an_error_that_says_what_to_set(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    dark = np.random.default_rng(0).integers(300, 1801, (64, 64, 3)).astype(np.uint16)
    with Raster(write(tmp_path / "dark.tif", dark)) as raster:
        with pytest.raises(RadiometryError, match=r"dark.tif holds uint16 .*'percentile'") as error:
            Radiometry().measure(raster)
        measured = re.search(r"2 to 98 % of them lie in ([\d.]+) to ([\d.]+)", str(error.value))
        assert [float(n) for n in measured.groups()] == pytest.approx([330, 1770], abs=25)
        with pytest.raises(RadiometryError, match="meets uint16 numbers"):
            raster.read_window(0, 0, 8, 8, Radiometry())
        with pytest.raises(RadiometryError, match="call measure"):
            raster.read_window(0, 0, 8, 8, Radiometry(scaling="percentile"))

        fixed = Radiometry(scaling="percentile").measure(raster)
        pixels = raster.read_window(0, 0, 64, 64, fixed).pixels
    assert fixed.is_fixed and fixed.bands == (1, 2, 3)
    np.testing.assert_allclose(fixed.low, np.percentile(dark, 2, axis=(0, 1)), atol=1)
    assert abs(pixels.mean() - 127) < 3 and pixels.min() == 0 and pixels.max() == 255


def test_percentiles_ignore_what_is_no_data(write: Callable[..., Path], tmp_path: Path) -> None:
    pixels = np.full((100, 100, 1), 1000.0, np.float32)
    pixels[:50] = 0
    pixels[50:75] = 3000
    pixels[99] = np.nan
    path = write(tmp_path / "rim.tif", pixels)
    with Raster(path) as raster:
        rule = Radiometry(scaling="percentile", percentiles=(0, 100))
        assert rule.measure(raster).low == (0.0,) * 3
        fixed = Radiometry(scaling="percentile", percentiles=(0, 100), nodata=0).measure(raster)
        assert (fixed.low, fixed.high) == ((1000.0,) * 3, (3000.0,) * 3)
        window = raster.read_window(0, 0, 100, 100, fixed)
        assert not window.valid[:50].any() and not window.valid[99].any()
        assert window.valid[50:99].all() and (window.pixels[80] == 0).all()

    path = write(tmp_path / "empty.tif", np.zeros((64, 64, 1), np.uint16), nodata=0)
    with Raster(path) as raster, pytest.raises(RadiometryError, match="holds no data where"):
        Radiometry(scaling="percentile").measure(raster)


def test_a_constant_scene_divides_by_nothing(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / "flat.tif", np.full((32, 32, 3), 500, np.uint16))
    with Raster(path) as raster:
        fixed = Radiometry(scaling="percentile").measure(raster)
        assert (raster.read_window(0, 0, 32, 32, fixed).pixels == 0).all()


def test_lives_in_configs_checkpoints_and_json() -> None:
    rule = Radiometry(
        bands=("B04", 3), scaling="range", low=(1, 2), high=(3, 4), gamma=1.5, nodata=0
    )
    again = Radiometry.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule and hash(again) == hash(rule)
    lazy = LazyCall(Radiometry)(bands=[4, 3, 2], scaling="percentile", percentiles=[1, 99])
    built = instantiate(lazy)
    assert built.bands == (4, 3, 2) and built.percentiles == (1.0, 99.0) and hash(built)
    with pytest.raises(ValueError, match="has no 'gama'; it has bands, scaling"):
        Radiometry.from_dict({"gama": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scaling": "auto"}, "scaling must be one of uint8, range, percentile"),
        ({"scaling": "range"}, "needs low and high"),
        ({"scaling": "range", "low": 5, "high": 5}, "low must be below high"),
        ({"scaling": "range", "low": (1, 2), "high": (3, 4, 5)}, "one for each band"),
        ({"scaling": "range", "bands": (1,), "low": (1, 2), "high": 9}, "one for each band"),
        ({"percentiles": (98, 2)}, "0 <= low < high <= 100"),
        ({"percentiles": (2,)}, "percentiles must be two numbers"),
        ({"gamma": 0}, "gamma must be positive"),
        ({"bands": ()}, "at least one band"),
        ({"precision": "float16"}, "precision must be"),
    ],
)
def test_refuses_what_cannot_be_meant(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Radiometry(**arguments)


def test_real_ports_differ_so_each_is_measured(sen2ships: Path) -> None:
    rule, highs = Radiometry(scaling="percentile", nodata=0), []
    for name in ("busan", "cartagena", "honolulu"):
        with Raster(sen2ships / "test" / f"{name}.tif") as raster:
            with pytest.raises(RadiometryError, match="holds uint16 numbers"):
                Radiometry().measure(raster)
            fixed = rule.measure(raster)
            window, _ = raster.read_overview(400, fixed)
        highs.append(fixed.high[0])
        shown = window.pixels[window.valid]
        assert 30 < shown.mean() < 170 and len(np.unique(shown)) > 150
    assert max(highs) > 1.1 * min(highs)
