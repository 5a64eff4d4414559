"""COCO shapes of a scene: masks and polygons as rectangles, and what label tools write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask

from rsd2.data.formats.coco_shapes import read_coco_shapes
from rsd2.structures import corners_to_boxes

SIZE = (40, 60)


def runs_of(pixels: np.ndarray) -> list[int]:
    """Counts of an uncompressed mask, down the columns, that of nothing first."""
    flat = pixels.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return [0, *counts] if flat[0] else counts


def rectangle_mask() -> np.ndarray:
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[10:14, 20:33] = 1
    return pixels


def write(path: Path, annotations: list[dict], images: list[dict] | None = None) -> Path:
    images = images or [{"id": 7, "file_name": "port.tif", "height": SIZE[0], "width": SIZE[1]}]
    content = {
        "images": images,
        "annotations": [
            {"id": 40 + k, "image_id": images[0]["id"], "category_id": 3, **annotation}
            for k, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 3, "name": "cargo ship"}],
    }
    path.write_text(json.dumps(content))
    return path


def read(path: Path, crowds: str = "detect"):
    return read_coco_shapes(path, ["data/port.tif"], SIZE, crowds)


def uncompressed():
    return {"size": list(SIZE), "counts": runs_of(rectangle_mask())}


def compressed():
    encoded = mask.encode(np.asfortranarray(rectangle_mask()))
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize(
    "shape",
    [
        {"segmentation": uncompressed()},
        {"segmentation": compressed()},
        {"segmentation": [[20, 10, 33, 10, 33, 14, 20, 14]]},
        {"segmentation": [[20, 10, 26, 10, 33, 10, 33, 14, 20, 14]]},
        {"segmentation": [[20, 10, 24, 10, 24, 14, 20, 14], [30, 10, 33, 10, 33, 14, 30, 14]]},
        {"bbox": [20, 10, 13, 4]},
    ],
    ids=["runs", "compressed", "polygon", "more_corners", "two_parts", "box"],
)
def test_every_kind_of_shape_gives_the_smallest_rectangle(tmp_path, shape):
    labels, difficult = read(write(tmp_path / "l.json", [shape]))
    assert labels.names == ["cargo_ship"] and difficult.tolist() == [0]
    box = corners_to_boxes(torch.from_numpy(labels.polygons))[0]
    np.testing.assert_allclose(box.numpy(), [26.5, 12, 13, 4, 0], atol=1e-9)


def test_a_mask_at_the_first_pixel_and_over_columns(tmp_path):
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[:, :2] = 1  # one run that starts at once and goes on in the second column
    shape = {"segmentation": {"size": list(SIZE), "counts": runs_of(pixels)}}
    labels, _ = read(write(tmp_path / "l.json", [shape]))
    box = corners_to_boxes(torch.from_numpy(labels.polygons))[0]
    np.testing.assert_allclose(box.numpy(), [1, 20, 40, 2, -90], atol=1e-9)


def test_crowds_that_are_none_are_detected_and_said(tmp_path, caplog):
    everything = write(tmp_path / "all.json", [{"bbox": [2, 2, 9, 9], "iscrowd": 1}] * 3)
    assert read(everything)[1].tolist() == [0, 0, 0]
    assert "marks all 3 objects as crowds" in caplog.text
    assert read(everything, "difficult")[1].tolist() == [1, 1, 1]

    some = [{"bbox": [2, 2, 9, 9], "iscrowd": flag} for flag in (0, 1)]
    path = write(tmp_path / "some.json", some)
    assert read(path)[1].tolist() == [0, 1]
    assert read(path, "objects")[1].tolist() == [0, 0]
    with pytest.raises(ValueError, match="crowds must be one of"):
        read(path, "none")


def entry(number: int, name: str, size: tuple[int, int] = SIZE) -> dict:
    return {"id": number, "file_name": name, "height": size[0], "width": size[1]}


@pytest.mark.parametrize(
    "images",
    [
        [entry(7, "busan_rgb.png"), entry(1, "busan_B02.tif")],
        [entry(7, "port.png"), entry(1, "another.tif", (9, 9))],
        [entry(7, "sub/PORT.TIF"), entry(1, "another.tif")],
    ],
    ids=["of_two_the_one_with_objects", "by_name", "folders_and_case"],
)
def test_the_entry_of_the_scene_is_found(tmp_path, images):
    labels, _ = read(write(tmp_path / "l.json", [{"bbox": [2, 2, 9, 9]}], images))
    assert len(labels) == 1


def test_an_empty_entry_of_the_name_beside_a_filled_one_is_said(tmp_path, caplog):
    images = [entry(7, "export.png"), entry(1, "port.tif")]
    labels, _ = read(write(tmp_path / "l.json", [{"bbox": [2, 2, 9, 9]}], images))
    assert len(labels) == 0
    assert "no object in port.tif, the scene by its name, but in export.png" in caplog.text


@pytest.mark.parametrize(
    ("annotations", "images", "message"),
    [
        ([{"bbox": [1, 1, 5, 5]}], [entry(7, "other.tif", (9, 9))], "no single image entry is"),
        ([{"bbox": [1, 1, 5, 5]}], [entry(7, "port.tif", (80, 120))], "a resampled or another"),
        ([{"bbox": [1, 1, 5, 5], "image_id": 8}], None, r"annotations\[0\] belongs to image id 8"),
        ([{"bbox": [1, 1, 5, 5], "category_id": 9}], None, "has the category id 9"),
        ([{"bbox": [1, 1, 5]}], None, r"annotations\[0\] has no usable shape"),
        ([{"segmentation": {"size": [9, 9], "counts": [81]}}], None, "its mask is of"),
        ([{"segmentation": {"size": list(SIZE), "counts": [5]}}], None, "do not add up"),
        ([{}], None, r"annotations\[0\] has no usable shape"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, annotations, images, message):
    path = write(tmp_path / "l.json", annotations, images)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_objects_without_area_or_outside_are_counted(tmp_path):
    shapes = [{"bbox": [2, 2, 0, 5]}, {"bbox": [100, 2, 5, 5]}, {"bbox": [50, 30, 30, 30]}]
    labels, difficult = read(write(tmp_path / "l.json", shapes))
    assert len(labels) == len(difficult) == 1
    assert (labels.num_without_area, labels.num_outside) == (1, 1)
