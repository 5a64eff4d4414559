"""Vector files of boxes: right in every format, the same bytes each time, whole or not there."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import shapely

from rsd2.geo.georeference import transform_points
from rsd2.geo.vector_files import (
    FORMATS,
    VectorFileError,
    VectorWriter,
    check_vector_output,
    read_metadata,
    read_vector_file,
)

ENDINGS = list(FORMATS)
UTM = "EPSG:32632"
COLORS = {"ship": (255, 0, 0), "plane": (0, 128, 255)}


def make_layer(count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Clockwise boxes (as seen on a map) near Hamburg, and their columns."""
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 5000, (count, 1, 2)) + (565000, 5933000)
    polygons = corner + np.array([(0, 0), (1, 3), (9, 1), (8, -2)])
    names = np.array(["ship", "plane", 'Größe, "x"'])[rng.integers(0, 3, count)]
    columns = {"class": names, "score": rng.uniform(size=count), "number": np.arange(count)}
    return polygons, columns


def write(path: Path, count: int = 50, step: int | None = None, **options: object) -> Path:
    """Write a layer in calls of ``step`` objects."""
    polygons, columns = make_layer(count)
    step = step or max(count, 1)
    with VectorWriter(path, crs=UTM, metadata={"model": "m", "seed": [1, 2]}, **options) as writer:
        for start in range(0, count, step):
            part = slice(start, start + step)
            writer.add(polygons[part], {name: values[part] for name, values in columns.items()})
        assert writer.num_objects == count
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"ships{ending}", colors=COLORS)
    polygons, columns = make_layer(50)
    geometries, found, crs = read_vector_file(path)
    order = np.argsort(np.asarray(found["number"], dtype=int))
    geometries = geometries[order]
    assert [str(name) for name in found["class"][order]] == columns["class"].tolist()
    scores = np.asarray(found["score"], dtype=float)[order]
    np.testing.assert_allclose(scores, columns["score"], rtol=1e-12)
    metadata = read_metadata(path)
    assert metadata["model"] == "m" and metadata["seed"] == [1, 2]

    if FORMATS[ending].startswith("GeoJSON"):
        assert crs == "EPSG:4326"
        expected, tolerance = transform_points(polygons, UTM, "EPSG:4326"), 1e-7
        assert all(shapely.is_ccw(shapely.get_exterior_ring(shape)) for shape in geometries)
    else:
        assert crs == (None if ending == ".csv" else UTM)
        expected, tolerance = polygons, 1e-8
    for shape, polygon in zip(geometries, expected):
        ring = shapely.get_coordinates(shape)[:4]
        gap = np.linalg.norm(ring[:, None] - polygon[None], axis=-1).min(axis=1)
        assert gap.max() < tolerance
    names = {file.name for file in tmp_path.iterdir()}
    assert names - {path.name} <= {f"{path.name}.metadata.json"}


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".geojsonl", ".fgb", ".csv"])
def test_bytes_depend_on_the_content_alone(tmp_path: Path, ending: str) -> None:
    first = write(tmp_path / f"a{ending}", 25_000, colors=COLORS).read_bytes()
    again = write(tmp_path / f"a{ending}", 25_000, 613, colors=COLORS).read_bytes()
    assert first == again
    other = write(tmp_path / f"a{ending}", 24_999, colors=COLORS).read_bytes()
    assert first != other


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_unknown_is_empty(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    with VectorWriter(path, crs=None) as writer:
        writer.add(make_layer(2)[0], {"score": [0.5, 0.25], "length_m": [np.nan, 4.0]})
    _, found, _ = read_vector_file(path)
    order = np.argsort([-float(score) for score in found["score"]])
    unknown, known = found["length_m"][order]
    assert float(known) == 4.0
    assert unknown == "" if ending == ".csv" else np.isnan(unknown)
    assert b"nan" not in path.read_bytes().lower() or ending in (".gpkg", ".fgb")


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_objects_are_a_file_too(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"none{ending}"
    with VectorWriter(path, crs=UTM, colors=COLORS):
        pass
    assert len(read_vector_file(path)[0]) == 0
    with VectorWriter(path, crs=UTM) as writer:
        writer.add(np.zeros((0, 4, 2)), {"class": np.array([], dtype=str), "score": np.zeros(0)})
    assert len(read_vector_file(path)[0]) == 0


def test_geojson_is_what_the_standard_says(tmp_path: Path) -> None:
    path = write(tmp_path / "ships.geojson", 5)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection" and len(content["features"]) == 5
    assert "crs" not in content
    for feature in content["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1] and len(ring) == 5
        for longitude, latitude in ring:
            assert 9 < longitude < 11 and 53 < latitude < 54
            assert longitude == round(longitude, 7) and latitude == round(latitude, 7)


def test_geojson_is_cut_at_the_date_line(tmp_path: Path) -> None:
    around = np.array([[(-100, 0), (100, 0), (100, 50), (-100, 50)]]) + (3339584.7238, 0.0)
    for name in ("a.geojson", "a.geojsonl"):
        with VectorWriter(tmp_path / name, crs="EPSG:3832") as writer:
            writer.add(around, {"class": ["ship"]})
        (shape,), _, _ = read_vector_file(tmp_path / name)
        east, west = sorted(shape.geoms, key=lambda part: -part.bounds[0])
        assert east.bounds[0] > 179.99 and east.bounds[2] == 180
        assert west.bounds[0] == -180 and west.bounds[2] < -179.99


@pytest.mark.parametrize("ending", ENDINGS)
def test_pixels_stay_pixels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"pixels{ending}"
    corners = np.array([[(1000.25, 2000.5), (1010, 2000), (1010, 2005), (1000, 2005)]])
    with VectorWriter(path, crs=None) as writer:
        writer.add(corners, {"class": ["ship"]})
    (shape,), _, _ = read_vector_file(path)
    assert shape.bounds == (1000.0, 2000.0, 1010.0, 2005.0)
    assert "pixels" in read_metadata(path)["places"]


def test_the_layer_opens_in_its_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "ships.gpkg", colors={"a & <b>": (1, 2, 3), **COLORS})
    with sqlite3.connect(path) as database:
        ((table, column, text, default),) = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        ).fetchall()
        listed = database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (table, column, default) == ("detections", "geom", 1)
    assert ("layer_styles", "attributes") in listed
    root = ElementTree.fromstring(text.split("\n", 1)[1])
    renderer = root.find("renderer-v2")
    assert renderer.get("attr") == "class" and renderer.get("type") == "categorizedSymbol"
    symbols = {symbol.get("name"): symbol for symbol in renderer.find("symbols")}
    for category in renderer.find("categories"):
        prop = symbols[category.get("symbol")].find("layer/prop[@k='line_color']")
        wanted = {"a & <b>": "1,2,3,255", "ship": "255,0,0,255", "plane": "0,128,255,255"}
        assert prop.get("v") == wanted[category.get("value")]
    assert pyogrio.list_layers(path)[0].tolist() == ["detections", "Polygon"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_error_leaves_what_was_there(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"ships{ending}")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    polygons, columns = make_layer(20_000)
    with pytest.raises(RuntimeError, match="power cut"), VectorWriter(path, crs=UTM) as writer:
        writer.add(polygons, columns)
        raise RuntimeError("power cut")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_debris_of_a_killed_run_is_not_appended_to(tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = tmp_path / f"ships{ending}"
        whole = write(path).read_bytes()
        for inner in ("", ending, ".geojsonl"):
            (tmp_path / f".{path.name}.0.partial{inner}").write_bytes(whole)
        assert write(path).read_bytes() == whole


def test_bad_content_is_refused(tmp_path: Path) -> None:
    polygons, columns = make_layer(3)
    hole = polygons.copy()
    hole[1, 2] = np.nan
    cases: list[tuple[Callable[[VectorWriter], None], str]] = [
        (lambda w: w.add(hole, columns), "no coordinates"),
        (lambda w: w.add(polygons, {"class": ["a"]}), "3 polygons, but 1 values of class"),
        (lambda w: w.add(polygons, {"score": np.zeros((3, 2))}), "one-dimensional"),
    ]
    for work, message in cases:
        with (
            pytest.raises(ValueError, match=message),
            VectorWriter(tmp_path / "a.gpkg", crs=UTM) as writer,
        ):
            work(writer)
    with (
        pytest.raises(ValueError, match="differ from"),
        VectorWriter(tmp_path / "a.gpkg", crs=UTM) as writer,
    ):
        writer.add(polygons, columns)
        writer.add(polygons, {"class": columns["class"]})
    assert list(tmp_path.iterdir()) == []


def test_impossible_outputs_are_judged_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="no ending of a vector file.*gpkg"):
        check_vector_output(tmp_path / "ships.shp")
    with pytest.raises(VectorFileError, match="folder that does not exist"):
        VectorWriter(tmp_path / "missing" / "ships.gpkg", crs=UTM)
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(VectorFileError, match="is a folder"):
        check_vector_output(tmp_path / "folder.gpkg")
    if os.geteuid():  # the superuser may write anywhere
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(VectorFileError, match="may not be written to"):
            check_vector_output(closed / "ships.gpkg")


def test_a_geopackage_that_is_open_elsewhere_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "ships.gpkg")
    before = path.read_bytes()
    with sqlite3.connect(path) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(VectorFileError, match="open in another program.*close it there"):
            write(path)
        database.rollback()
    database.close()
    assert path.read_bytes() == before

    viewer = sqlite3.connect(path)
    viewer.execute("PRAGMA journal_mode=WAL")
    viewer.execute("CREATE TABLE notes (text)")
    viewer.commit()
    with pytest.raises(VectorFileError, match="ships.gpkg-wal lies beside it"):
        check_vector_output(path)
    viewer.close()
    check_vector_output(path)


def test_a_disk_without_room_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyogrio.raw.write", full)
    with pytest.raises(VectorFileError, match="ships.gpkg cannot be written .*No space left"):
        write(tmp_path / "ships.gpkg")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no vector file"):
        read_vector_file(tmp_path / "missing.gpkg")
    path = tmp_path / "notes.gpkg"
    path.write_text("no database")
    with pytest.raises(VectorFileError, match="notes.gpkg is not a vector file"):
        read_vector_file(path)
    path = write(tmp_path / "ships.gpkg")
    with pytest.raises(VectorFileError, match="no layer 'boats'; its layers are .*detections"):
        read_vector_file(path, layer="boats")
