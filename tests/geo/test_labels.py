"""Labels and areas with coordinates return to the pixels that they were drawn on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
import torch

from rsd2.geo import GeoreferenceError, Raster
from rsd2.geo.georeference import Georeference, transform_points
from rsd2.geo.labels import read_area, read_scene_labels
from rsd2.geo.vector_files import VectorFileError, VectorWriter
from rsd2.structures import boxes_to_corners

SIZE = (240, 320)
GROUND = Georeference("scene.tif", "transform", "EPSG:32632", (0.5, 0, 565000, 0, -0.5, 5933000))


def boxes(count: int = 30) -> np.ndarray:
    """Corners (N, 4, 2) within the scene, clockwise on the screen."""
    rng = np.random.default_rng(3)
    values = np.stack(
        [
            rng.uniform(60, 260, count),
            rng.uniform(60, 180, count),
            rng.uniform(10, 50, count),
            rng.uniform(3, 9, count),
            rng.uniform(-90, 90, count),
        ],
        axis=1,
    )
    return boxes_to_corners(torch.from_numpy(values)).numpy()


def write_shapes(path: Path, shapes: list, names: list, crs: str | None = "EPSG:32632") -> Path:
    """Write any shapes with a column ``kind``."""
    pyogrio.raw.write(
        str(path),
        geometry=shapely.to_wkb(np.array(shapes, dtype=object)),
        field_data=[np.array(names, dtype=object)],
        fields=["kind"],
        crs=crs,
        geometry_type="Unknown",
    )
    return path


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".fgb"])
def test_boxes_return_through_every_place_and_format(
    place: tuple, tmp_path: Path, ending: str
) -> None:
    _, path, crs, _ = place
    polygons = boxes()
    with Raster(path) as raster:
        georeference, size = raster.georeference, (raster.height, raster.width)
    output = tmp_path / f"ships{ending}"
    with VectorWriter(output, crs=georeference.crs) as writer:
        numbers = [f"c{k}" for k in range(len(polygons))]
        writer.add(georeference.to_crs(polygons), {"class": numbers})
    labels = read_scene_labels(output, georeference, size, in_pixels=crs is None)
    assert labels.describe() == "30 objects"
    order = np.argsort([int(text[1:]) for text in labels.names])
    found = labels.polygons[order]
    tolerance = (
        0.05 if ending == ".geojson" else 1e-3
    )  # seven decimals of a degree are a centimetre
    np.testing.assert_allclose(found, polygons, atol=tolerance)


def test_other_shapes_become_the_smallest_rectangle(tmp_path: Path) -> None:
    (box,) = boxes(1)
    ring = np.concatenate([np.linspace(box[k], box[(k + 1) % 4], 5)[:-1] for k in range(4)])
    shape = shapely.Polygon(GROUND.to_crs(ring))
    path = write_shapes(tmp_path / "a.gpkg", [shape], ["ship"])
    labels = read_scene_labels(path, GROUND, SIZE, "kind")
    assert labels.names == ["ship"]
    found, wanted = shapely.polygons(labels.polygons)[0], shapely.polygons(box)
    assert found.symmetric_difference(wanted).area < 1e-3 * wanted.area
    assert not shapely.is_ccw(shapely.LinearRing(labels.polygons[0] * (1, -1)))


def test_a_quadrilateral_keeps_its_corners_whatever_its_sense(tmp_path: Path) -> None:
    quad = np.array([(50.0, 50), (90, 55), (85, 70), (52, 66)])
    for corners in (quad, np.concatenate([quad[:1], quad[:0:-1]])):
        path = write_shapes(tmp_path / "a.fgb", [shapely.Polygon(GROUND.to_crs(corners))], ["ship"])
        found = read_scene_labels(path, GROUND, SIZE, "kind").polygons
        np.testing.assert_allclose(found[0], quad, atol=1e-6)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    def ground(*points: tuple[float, float]) -> np.ndarray:
        return GROUND.to_crs(np.array(points, dtype=float))

    square = [(10, 10), (20, 10), (20, 20), (10, 20)]
    across = [(-5, 30), (5, 30), (5, 40), (-5, 40)]
    away = [(-50, 30), (-40, 30), (-40, 40), (-50, 40)]
    shapes = [
        shapely.Polygon(ground(*square)),
        shapely.Polygon(ground(*across)),
        shapely.Polygon(ground(*away)),
        shapely.Polygon(ground(*square)),
        shapely.Polygon(ground(*square)),
        shapely.Point(ground((5, 5))[0]),
        shapely.LineString(ground((5, 5), (50, 50))),
        shapely.Polygon(ground((5, 5), (6, 6), (7, 7), (8, 8))),
        shapely.MultiPolygon([shapely.Polygon(ground(*square)), shapely.Polygon(ground(*across))]),
        None,
    ]
    names = ["ship", "plane", "ship", None, " ", "ship", "ship", "ship", "tank", "ship"]
    path = write_shapes(tmp_path / "a.gpkg", shapes, names)
    labels = read_scene_labels(path, GROUND, SIZE, "kind")
    assert labels.names == ["ship", "plane", "tank", "tank"]
    assert (labels.num_outside, labels.num_without_class, labels.num_without_area) == (1, 2, 4)
    assert labels.describe() == (
        "4 objects; left out: 1 outside the scene, 2 without a class, 4 without an area"
    )
    every = read_scene_labels(path, GROUND, SIZE, None, class_name="thing")
    assert set(every.names) == {"thing"} and len(every) == 6
    with pytest.raises(VectorFileError, match="no column 'class' for the classes; it has kind"):
        read_scene_labels(path, GROUND, SIZE)


def test_numbers_are_classes_too(tmp_path: Path) -> None:
    collection = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"id": number},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [
                        transform_points(
                            GROUND.to_crs(box[[0, 1, 2, 3, 0]]), "EPSG:32632", "EPSG:4326"
                        ).tolist()
                    ],
                },
            }
            for number, box in zip((3, 5, None), boxes(3))
        ],
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collection))
    labels = read_scene_labels(path, GROUND, SIZE, "id")
    assert labels.names == ["3", "5"] and labels.num_without_class == 1


def test_a_box_that_the_date_line_has_cut_is_one_object(tmp_path: Path) -> None:
    fiji = Georeference("fiji", "transform", "EPSG:3832", (1.0, 0, 3339484.7, 0, -1.0, 50.0))
    box = np.array([[(60.0, 10), (140, 20), (138, 40), (58, 30)]])
    path = tmp_path / "a.geojson"
    with VectorWriter(path, crs="EPSG:3832") as writer:
        writer.add(fiji.to_crs(box), {"class": ["ship"]})
    labels = read_scene_labels(path, fiji, (100, 200))
    assert len(labels) == 1
    gap = np.linalg.norm(labels.polygons[0][:, None] - box[0], axis=-1).min(axis=0)
    assert gap.max() < 0.1


def test_a_scene_without_coordinates_takes_pixels_only(tmp_path: Path) -> None:
    scene = Georeference("plain.png")
    for ending in (".gpkg", ".geojson"):
        path = tmp_path / f"a{ending}"
        with VectorWriter(path, crs=None) as writer:
            writer.add(boxes(4), {"class": ["ship"] * 4})
        found = read_scene_labels(path, scene, SIZE, in_pixels=True)
        np.testing.assert_allclose(found.polygons, boxes(4), atol=1e-6)
    assert len(read_scene_labels(tmp_path / "a.gpkg", scene, SIZE)) == 4
    with pytest.raises(GeoreferenceError, match="plain.png has no coordinate system"):
        read_scene_labels(tmp_path / "a.geojson", scene, SIZE)


def test_an_area_is_cut_to_the_scene(tmp_path: Path) -> None:
    corners = np.array([(-100.0, 60), (160, 60), (160, 400), (-100, 400)])
    places = transform_points(GROUND.to_crs(corners), "EPSG:32632", "EPSG:4326")
    path = write_shapes(tmp_path / "aoi.geojson", [shapely.Polygon(places)], ["area"], "EPSG:4326")
    area = read_area(path, GROUND, SIZE)
    wanted = shapely.box(0, 60, 160, 240)
    assert area.symmetric_difference(wanted).area < 0.01 * wanted.area


def test_an_area_elsewhere_is_one_sentence(tmp_path: Path) -> None:
    chile = shapely.box(-71, -34, -70, -33)
    path = write_shapes(tmp_path / "aoi.geojson", [chile], ["area"], "EPSG:4326")
    message = "-71 to -70, -34 to -33.* does not meet the scene scene.tif .9.98"
    with pytest.raises(VectorFileError, match=message):
        read_area(path, GROUND, SIZE)
    path = write_shapes(tmp_path / "p.geojson", [shapely.Point(9, 50)], ["area"], "EPSG:4326")
    with pytest.raises(VectorFileError, match="holds no polygon"):
        read_area(path, GROUND, SIZE)
    with pytest.raises(FileNotFoundError):
        read_area(tmp_path / "missing.gpkg", GROUND, SIZE)
