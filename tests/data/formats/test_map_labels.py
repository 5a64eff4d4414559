"""Labels in coordinates of the ground: which raster shows an object, and what cannot be placed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyogrio")

from rsd2.commands.convert_labels import main
from rsd2.data.datasets import load_dataset
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import ALL_FORMATS, detect_format
from tests.data.formats.published_labels import (
    HEIGHT,
    PUBLISHED,
    TURNED,
    WIDTH,
    write_place,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two folders, all of the same place, and the published labels."""
    for name in ("harbour/a b.png", "empty.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        write_place(path)
    (tmp_path / "labels.geojson").write_text(PUBLISHED["geojson"]()["labels.geojson"], "utf-8")
    return tmp_path


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def forget_images(content: dict) -> None:
    content.pop("metadata", None)
    for feature in content["features"]:
        del feature["properties"]["image"]


def test_objects_without_image_belong_to_every_raster_that_they_meet(folder: Path) -> None:
    path = folder / "labels.geojson"
    change(path, forget_images)
    report = LabelReport()
    found = ALL_FORMATS["geojson"].read(path, folder / "images", report=report)
    assert [len(image.objects) for image in found] == [2, 2] and report.total == 0

    # A file with the name of a raster is meant for it alone, and what lies elsewhere is named.
    def move(content: dict) -> None:
        ring = content["features"][1]["geometry"]["coordinates"][0][0]
        ring[:] = [[x + 1, y] for x, y in ring]

    change(path, move)
    path.rename(folder / "a b.geojson")
    found = ALL_FORMATS["geojson"].read(folder / "a b.geojson", folder / "images", report=report)
    assert [len(image.objects) for image in found] == [0, 1]
    np.testing.assert_allclose(found[1].objects[0].polygon, TURNED, atol=1e-4)
    assert {(p.kind, p.fate) for p in report.problems} == {
        ("absent_image", "dropped"),
        ("image_without_label", "kept"),
    }
    assert "features[1] lies on none of the 1 rasters" in report.summary()


def test_what_is_no_object_is_named_with_its_entry(folder: Path) -> None:
    def spoil(content: dict) -> None:
        point = {"type": "Point", "coordinates": [10, 50]}
        line = {"type": "Polygon", "coordinates": [[[10, 50], [10, 50]]]}
        for geometry in (point, line, None):
            content["features"].append({"type": "Feature", "properties": {}, "geometry": geometry})
        content["features"].append({**content["features"][0], "properties": {"typ": "ship"}})

    change(folder / "labels.geojson", spoil)
    report = LabelReport()
    one = ALL_FORMATS["geojson"]
    assert (
        len(one.read(folder / "labels.geojson", folder / "images", report=report)[1].objects) == 2
    )
    assert [p.message.split(":")[0] for p in report.problems] == [
        f"features[{k}]" for k in (2, 3, 4, 5)
    ]
    assert "no class 'class'; its properties are typ" in report.summary(max_examples=9)


@pytest.mark.parametrize("name", ["geojson", "gpkg"])
def test_images_without_a_place_are_refused_and_leave_nothing(name, folder: Path, capsys) -> None:
    one, output = ALL_FORMATS[name], folder / f"out.{name}"
    found = ALL_FORMATS["geojson"].read(folder / "labels.geojson", folder / "images")
    with pytest.raises(ValueError, match="name the folder of the rasters"):
        one.write(output, found)
    with pytest.raises(ValueError, match="name the folder of the rasters"):
        one.read(folder / "labels.geojson")
    (folder / "images" / "harbour" / "a b.png.aux.xml").unlink()
    with pytest.raises(ValueError, match=r"a b\.png has no place on the ground"):
        one.write(output, found, folder=folder / "images")
    assert not output.exists()


def test_from_the_map_to_a_label_tool_and_back_by_the_command(folder: Path, capsys) -> None:
    source, images = folder / "labels.geojson", ["--images", str(folder / "images")]
    change(source, lambda c: [f["properties"].update(typ="crane") for f in c["features"]])
    arguments = ["--input", str(source), *images, "--class-column", "typ"]
    assert main([*arguments, "--to", "dota", "--output", str(folder / "txt")]) == 0
    assert "GeoJSON to DOTA text: 2 images, 2 objects" in capsys.readouterr().out
    back = folder / "back.gpkg"
    arguments = ["--input", str(folder / "txt"), *images, "--to", "gpkg", "--output", str(back)]
    assert main(arguments) == 0
    assert detect_format(back) is ALL_FORMATS["gpkg"]
    records = load_dataset(back, folder / "images", ["crane"], on_problem="error")
    assert [len(record["annotations"]) for record in records] == [0, 2]
    turned = records[1]["annotations"][0]
    np.testing.assert_allclose(np.reshape(turned["poly"], (4, 2)), TURNED, atol=1e-4)
    assert turned["difficult"] == 1
