"""Coordinates, directions and metres of boxes, against geometry that shares no code with them."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pyproj
import pytest
import torch
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from rsd2.geo import Georeference, GeoreferenceError, Raster
from rsd2.geo.georeference import transform_points
from rsd2.structures import boxes_to_corners

# WGS 84, for a solution of the inverse problem that does not use pyproj's.
_A, _F = 6378137.0, 1 / 298.257223563


def vincenty(lon1: float, lat1: float, lon2: float, lat2: float) -> tuple[float, float]:
    """Length in metres and azimuth in degrees of a geodesic (Vincenty, 1975)."""
    b = _A * (1 - _F)
    u1, u2 = (math.atan((1 - _F) * math.tan(math.radians(lat))) for lat in (lat1, lat2))
    difference = lam = math.radians(lon2 - lon1)
    for _ in range(50):
        sin_sigma = math.hypot(
            math.cos(u2) * math.sin(lam),
            math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * math.cos(lam),
        )
        if sin_sigma == 0:
            return 0.0, 0.0
        cos_sigma = math.sin(u1) * math.sin(u2) + math.cos(u1) * math.cos(u2) * math.cos(lam)
        sigma = math.atan2(sin_sigma, cos_sigma)
        sin_alpha = math.cos(u1) * math.cos(u2) * math.sin(lam) / sin_sigma
        cos2_alpha = 1 - sin_alpha**2
        cos_2m = cos_sigma - 2 * math.sin(u1) * math.sin(u2) / cos2_alpha
        c = _F / 16 * cos2_alpha * (4 + _F * (4 - 3 * cos2_alpha))
        before = lam
        lam = difference + (1 - c) * _F * sin_alpha * (
            sigma + c * sin_sigma * (cos_2m + c * cos_sigma * (2 * cos_2m**2 - 1))
        )
        if abs(lam - before) < 1e-14:
            break
    k = cos2_alpha * (_A**2 - b**2) / b**2
    large = 1 + k / 16384 * (4096 + k * (-768 + k * (320 - 175 * k)))
    small = k / 1024 * (256 + k * (-128 + k * (74 - 47 * k)))
    delta = small * sin_sigma * (cos_2m + small / 4 * cos_sigma * (2 * cos_2m**2 - 1))
    azimuth = math.atan2(
        math.cos(u2) * math.sin(lam),
        math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * math.cos(lam),
    )
    return b * large * (sigma - delta), math.degrees(azimuth)


def boxes(count: int = 40) -> np.ndarray:
    """Corners (N, 4, 2) of ship-like boxes of all directions, some across the border."""
    rng = np.random.default_rng(0)
    center = rng.uniform(-5, 320, (count, 2))
    length = rng.uniform(8, 60, (count, 1))
    sides = np.concatenate([length, length * rng.uniform(0.2, 0.5, (count, 1))], axis=1)
    angle = np.linspace(-90, 90, count, endpoint=False)[:, None]
    return boxes_to_corners(torch.from_numpy(np.concatenate([center, sides, angle], 1))).numpy()


def true_places(crs: str, transform: object, pixels: np.ndarray) -> np.ndarray:
    """Longitude and latitude of (..., 2) pixels, by Newton steps on the forward projection."""
    target = np.array([transform @ tuple(p) for p in pixels.reshape(-1, 2)])
    forward = pyproj.Proj(crs) if crs != "EPSG:4326" else None
    if forward is None:
        return target.reshape(pixels.shape)
    lon, lat = forward(*target.mean(axis=0), inverse=True)
    guess = np.tile([lon, lat], (len(target), 1))
    for _ in range(12):
        x, y = forward(guess[:, 0], guess[:, 1])
        step = 1e-5
        east = np.stack(forward(guess[:, 0] + step, guess[:, 1]), -1)
        north = np.stack(forward(guess[:, 0], guess[:, 1] + step), -1)
        here = np.stack([x, y], -1)
        jacobian = np.stack([(east - here) / step, (north - here) / step], -1)
        guess += np.linalg.solve(jacobian, (target - here)[..., None])[..., 0]
    return guess.reshape(pixels.shape)


def test_corners_reach_their_coordinates_and_return(place: tuple) -> None:
    name, path, crs, transform = place
    polygons = boxes()
    with Raster(path) as raster:
        georeference = raster.georeference
    coordinates = georeference.to_crs(polygons)
    if crs is None:
        assert georeference.kind == "pixels" and "no coordinates" in georeference.note
        assert not georeference.has_coordinates and georeference.pixel_size(5, 5) is None
        np.testing.assert_array_equal(coordinates, polygons)
        assert np.isnan(georeference.to_longitude_latitude(polygons)).all()
        assert np.isnan(georeference.measure(polygons).azimuth).all()
        return

    assert georeference.kind == ("gcps" if name == "gcps" else "transform")
    places = georeference.to_longitude_latitude(polygons)
    np.testing.assert_allclose(places, true_places(crs, transform, polygons), rtol=0, atol=1e-6)
    np.testing.assert_allclose(georeference.from_crs(coordinates), polygons, rtol=0, atol=1e-3)
    back = georeference.from_other_crs(places, "EPSG:4326")
    np.testing.assert_allclose(back, polygons, rtol=0, atol=1e-3)
    other = transform_points(places, "EPSG:4326", "EPSG:3995" if name == "polar" else "EPSG:3857")
    back = georeference.from_other_crs(other, "EPSG:3995" if name == "polar" else "EPSG:3857")
    np.testing.assert_allclose(back, polygons, rtol=0, atol=1e-3)


def test_measures_are_those_of_geodesics(place: tuple) -> None:
    name, path, crs, transform = place
    if crs is None:
        pytest.skip("no metres without coordinates")
    polygons = boxes()
    with Raster(path) as raster:
        found = raster.georeference.measure(polygons)

    middles = (polygons + np.roll(polygons, -1, axis=1)) / 2
    sides = true_places(crs, transform, middles)
    centers = true_places(crs, transform, polygons.mean(axis=1))
    corners = true_places(crs, transform, polygons)
    geod = pyproj.Geod(ellps="WGS84")
    for index, (ends, center) in enumerate(zip(sides, centers)):
        lines = [vincenty(*ends[3], *ends[1]), vincenty(*ends[0], *ends[2])]
        lines.sort(reverse=True)
        assert found.length[index] == pytest.approx(lines[0][0], rel=1e-3)
        assert found.width[index] == pytest.approx(lines[1][0], rel=1e-3)
        turn = (found.azimuth[index] - lines[0][1] + 90) % 180 - 90
        assert abs(turn) < 0.05 and 0 <= found.azimuth[index] < 180
        area = abs(geod.polygon_area_perimeter(*corners[index].T)[0])
        assert found.area[index] == pytest.approx(area, rel=1e-5)
        assert (found.longitude[index], found.latitude[index]) == pytest.approx(center, abs=1e-6)


def test_a_pixel_diagonal_at_60_degrees_north_points_26_6_degrees() -> None:
    georeference = Georeference("scene", "transform", "EPSG:4326", (1e-5, 0, 24.9, 0, -1e-5, 60.0))
    box = torch.tensor([[10.0, 10.0, 40.0, 2.0, 45.0]], dtype=torch.float64)
    azimuth = georeference.measure(boxes_to_corners(box).numpy()).azimuth
    assert azimuth[0] == pytest.approx(26.6, abs=0.1)


def test_the_long_side_is_the_long_one_on_the_ground() -> None:
    # 12 pixels along the row are 6 m at 60 degrees north, 10 along the column are 11 m.
    georeference = Georeference("scene", "transform", "EPSG:4326", (1e-5, 0, 24.9, 0, -1e-5, 60.0))
    box = torch.tensor([[10.0, 10.0, 12.0, 10.0, 0.0]], dtype=torch.float64)
    found = georeference.measure(boxes_to_corners(box).numpy())
    assert min(found.azimuth[0], 180 - found.azimuth[0]) < 0.01
    assert found.length[0] > 1.5 * found.width[0]


def test_azimuth_does_not_depend_on_the_first_corner_or_the_sense(place: tuple) -> None:
    name, path, crs, _ = place
    if crs is None:
        pytest.skip("no azimuth without coordinates")
    with Raster(path) as raster:
        georeference = raster.georeference
    polygons = boxes(12)
    azimuth = georeference.measure(polygons).azimuth
    for other in (np.roll(polygons, 1, axis=1), np.roll(polygons, 2, axis=1), polygons[:, ::-1]):
        turn = (georeference.measure(other).azimuth - azimuth + 90) % 180 - 90
        np.testing.assert_allclose(turn, 0, atol=1e-3)


def test_metres_of_web_mercator_are_not_its_units() -> None:
    georeference = Georeference(
        "gdynia", "transform", "EPSG:3857", (10.0, 0, 2064000, 0, -10.0, 7259000)
    )
    along, across = georeference.pixel_size(50, 50)
    latitude = georeference.to_longitude_latitude(np.array([50.0, 50.0]))[1]
    assert latitude == pytest.approx(54.5, abs=0.2)
    assert 10 / along == pytest.approx(1.7, abs=0.05)
    assert along == pytest.approx(across, rel=0.01)


def test_the_date_line_is_no_seam() -> None:
    georeference = Georeference(
        "fiji", "transform", "EPSG:4326", (1e-4, 0, 179.999, 0, -1e-4, -17.0)
    )
    box = torch.tensor([[10.0, 10.0, 40.0, 10.0, 0.0]], dtype=torch.float64)
    found = georeference.measure(boxes_to_corners(box).numpy())
    assert found.length[0] == pytest.approx(40e-4 * 111320 * math.cos(math.radians(17)), rel=0.01)
    assert found.area[0] == pytest.approx(found.length[0] * found.width[0], rel=0.01)


def test_no_boxes_and_impossible_places() -> None:
    georeference = Georeference("scene", "transform", "EPSG:32632", (1.0, 0, 5e5, 0, -1.0, 5e6))
    assert len(georeference.measure(np.zeros((0, 4, 2))).area) == 0
    assert georeference.to_crs(np.zeros((0, 4, 2))).shape == (0, 4, 2)
    # The far side of the Earth is not in a strip of UTM, and not an exception either.
    far = georeference.from_other_crs(np.array([[-171.0, 0.0], [9.0, 45.0]]), "EPSG:4326")
    assert np.isfinite(far[1]).all()
    nowhere = Georeference("scene", "transform", "EPSG:32632", (1.0, 0, 1e30, 0, -1.0, 1e30))
    assert np.isnan(nowhere.measure(boxes(3)).length).all()
    with pytest.raises(GeoreferenceError, match="no longitude and latitude"):
        nowhere.pixel_size(5, 5)


def test_survives_pickling_and_hashing(place: tuple) -> None:
    with Raster(place[1]) as raster:
        georeference = raster.georeference
    assert georeference.to_crs(np.zeros((0, 4, 2))).shape == (0, 4, 2)
    assert georeference.from_crs(np.zeros((0, 2))).shape == (0, 2)
    copy = pickle.loads(pickle.dumps(georeference))
    assert copy == georeference and hash(copy) == hash(georeference)
    np.testing.assert_array_equal(copy.to_crs(boxes(3)), georeference.to_crs(boxes(3)))


def test_bad_georeferences_are_one_sentence(write: object, tmp_path: Path) -> None:
    local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    pixels = np.zeros((8, 8, 1), np.uint8)
    path = write(tmp_path / "a.tif", pixels, crs=local, transform=(1, 0, 5, 0, -1, 5))
    with pytest.raises(GeoreferenceError, match="a.tif: its coordinate system .*gdal_edit") as e:
        Raster(path)
    assert "\n" not in str(e.value)
    with pytest.raises(GeoreferenceError, match="no known relation"):
        Georeference("b.tif", "transform", "EPSG:1", (1, 0, 5, 0, -1, 5))
    with pytest.raises(GeoreferenceError, match="maps its pixels to a line"):
        Georeference("b.tif", "transform", "EPSG:4326", (1, 0, 5, 1, 0, 5))
    with pytest.raises(GeoreferenceError, match="has no coordinate system"):
        Georeference("b.tif").from_other_crs(np.zeros((1, 2)), "EPSG:4326")


def test_another_coordinate_system_can_be_assumed(write: object, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 1), np.uint8)
    path = write(tmp_path / "a.tif", pixels, transform=(0.5, 0, 565000, 0, -0.5, 5933000))
    with Raster(path) as raster:
        assert "no coordinate system" in raster.georeference.note
        assert raster.georeference.to_crs(np.array([2.0, 0.0])).tolist() == [565001, 5933000]
        assert raster.pixel_size is None
    with Raster(path, crs="EPSG:32632") as raster:
        assert raster.georeference.note == ""
        assert raster.pixel_size == pytest.approx((0.5, 0.5), rel=1e-3)


def test_control_points_that_disagree_say_by_how_much(write: object, tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row, column, 565000 + column, 5933000 - row, 0.0)
        for row in (0, 50, 100)
        for column in (0, 50, 100)
    ]
    pixels = np.zeros((100, 100, 1), np.uint8)
    for shift, exact in ((0.0, True), (30.0, False)):
        points[4].x = 565050 + shift
        path = write(tmp_path / "a.tif", pixels, gcps=(points, CRS.from_epsg(32632)))
        with Raster(path) as raster:
            note = raster.georeference.note
        gap = float(note.split("within ")[1].split()[0])
        assert "9 ground control points" in note
        assert gap < 1e-3 if exact else 5 < gap < 30
