"""Tiny scenes: labels fit the drawings, sizes are those asked for, folders can be finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest

from rsd2.data.formats.coco import read_coco_file
from rsd2.data.formats.label_report import LabelReport
from rsd2.synthetic import (
    TINY_CATEGORIES,
    TinySceneConfig,
    describe_annotations,
    draw_tiny_scene,
    write_tiny_scenes,
)
from rsd2.synthetic.canvas import Canvas, Pen
from rsd2.synthetic.tiny import figures as figures
from rsd2.synthetic.tiny.layout import DENSE_COUNT

SMALL = TinySceneConfig(size=(96, 128))
BACKGROUND = (255, 0, 255)
KINDS = {
    "standing": figures.standing_person,
    "sitting": figures.sitting_person,
    "lying": figures.lying_person,
    "swimming": figures.swimming_person,
    "boat": figures.boat,
}


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """OpenCV's threads wait for each other on a busy machine; the drawings are small."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heading", [-1.5708, 0.0, 0.7])
def test_boxes_are_tight_around_the_drawing(kind: str, heading: float) -> None:
    for seed, length in enumerate((4.0, 9.0, 25.0)):
        canvas = Canvas(60, 60, 4, (0.5, 0.5))
        canvas.image[:] = BACKGROUND
        pen = Pen(canvas, np.array([30.3, 29.6]), heading, length, 0.5 * length)
        parts = KINDS[kind](Random(seed))
        figures.draw_parts(pen, parts)
        rows, columns = np.nonzero((canvas.image != BACKGROUND).any(axis=2))
        drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 4
        # one sub-pixel of a quarter pixel on each side
        np.testing.assert_allclose(figures.extent(pen, parts), drawn, atol=0.26)


def test_equal_seeds_give_equal_scenes() -> None:
    first, again, other = (draw_tiny_scene(SMALL, 3, k) for k in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    assert len(first.objects) == len(again.objects)
    for one, two in zip(first.objects, again.objects):
        np.testing.assert_array_equal(one.box, two.box)
    assert (first.image != other.image).any()


def test_sizes_and_places_of_the_labels() -> None:
    config = TinySceneConfig(size=(128, 160), object_size=(2.0, 20.0), density=2.0)
    sizes, seen = [], set()
    for index in range(25):
        scene = draw_tiny_scene(config, 1, index)
        for item in scene.objects:
            assert (item.box[:2] >= 0).all()
            assert (item.box[2:] <= (160, 128)).all()
            seen.add(item.category)
            if not (item.ignore or item.logo):
                sizes.append(float(np.sqrt((item.box[2:] - item.box[:2]).prod())))
    assert seen == set(TINY_CATEGORIES)
    assert min(sizes) >= 2.0
    assert max(sizes) <= 20.0
    assert sum(size <= 8 for size in sizes) > 0.2 * len(sizes)
    assert sum(size >= 12 for size in sizes) > 0.05 * len(sizes)


def test_larger_objects_if_asked_for() -> None:
    config = TinySceneConfig(size=(128, 160), object_size=(20.0, 40.0))
    boxes = [o for k in range(6) for o in draw_tiny_scene(config, 2, k).objects if not o.ignore]
    assert boxes
    assert all((o.box[2:] - o.box[:2]).prod() >= 20**2 for o in boxes)


def test_objects_can_be_seen() -> None:
    """A box differs from a ring around it by more than two equal pieces of ground do."""
    inside, outside = [], []
    for index in range(12):
        scene = draw_tiny_scene(TinySceneConfig(degradation=0.0), 4, index)
        image = scene.image.astype(np.float64)
        for item in scene.objects:
            if item.ignore or item.uncertain or item.logo:
                continue
            x0, y0, x1, y1 = (int(v) for v in (*np.floor(item.box[:2]), *np.ceil(item.box[2:])))
            ring = image[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3].reshape(-1, 3)
            inside.append(image[y0:y1, x0:x1].reshape(-1, 3).std(axis=0).mean())
            outside.append(np.median(np.abs(ring - np.median(ring, axis=0))))
    assert np.median(inside) > 3 * np.median(outside)


def test_uncertain_people_are_faint() -> None:
    faint = TinySceneConfig(uncertain_fraction=1.0, ignore_rate=0.0, degradation=0.0, density=2.0)
    clear = TinySceneConfig(uncertain_fraction=0.0, ignore_rate=0.0, degradation=0.0, density=2.0)

    def contrast(config: TinySceneConfig) -> float:
        values = []
        for index in range(8):
            scene = draw_tiny_scene(config, 9, index)
            for item in scene.objects:
                if item.category != "boat" and not item.logo:
                    assert item.uncertain == (config is faint)
                    x0, y0, x1, y1 = np.rint(item.box).astype(int)
                    values.append(scene.image[y0 : y1 + 1, x0 : x1 + 1].std())
        return float(np.mean(values))

    assert contrast(faint) < 0.75 * contrast(clear)


def test_crowds_are_one_region_without_labels_inside() -> None:
    config = TinySceneConfig(ignore_rate=4.0)
    regions = 0
    for index in range(6):
        objects = draw_tiny_scene(config, 5, index).objects
        crowds = [o.box for o in objects if o.ignore and not o.logo]
        regions += len(crowds)
        for item in objects:
            if item.ignore:
                continue
            for x0, y0, x1, y1 in crowds:
                within = (item.box[:2] >= (x0, y0)).all() and (item.box[2:] <= (x1, y1)).all()
                assert not within
    assert regions > 5


def test_dense_and_empty_scenes() -> None:
    dense = draw_tiny_scene(TinySceneConfig(dense_fraction=1.0, empty_fraction=0.0), 0, 0)
    assert len(dense.objects) > DENSE_COUNT
    assert dense.dense
    empty = draw_tiny_scene(TinySceneConfig(empty_fraction=1.0), 0, 0)
    assert empty.objects == []
    assert (empty.theme, empty.dense) == ("empty", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 32}, "size"),
        ({"size": (100, 100, 3)}, "size"),
        ({"object_size": (20.0, 2.0)}, "object_size"),
        ({"object_size": (0.5, 2.0)}, "object_size"),
        ({"dense_fraction": 1.5}, "dense_fraction"),
        ({"density": 0.0}, "density"),
        ({"degradation": float("nan")}, "degradation"),
    ],
)
def test_impossible_scenes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinySceneConfig(**options)


def test_negative_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        draw_tiny_scene(SMALL, -1, 0)


def test_a_folder_is_a_coco_file_with_the_extra_fields(tmp_path: Path) -> None:
    write_tiny_scenes(tmp_path, 6, SMALL, seed=2, progress=False)
    coco = json.loads((tmp_path / "annotations.json").read_text())
    assert [c["name"] for c in coco["categories"]] == list(TINY_CATEGORIES)
    fields = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "uncertain",
              "logo", "in_dense_image"}  # fmt: skip
    assert all(set(a) == fields for a in coco["annotations"])
    report = LabelReport()
    found = read_coco_file(tmp_path / "annotations.json", report, out_of_image="drop")
    assert report.total == 0
    for index, image in enumerate(found.images.values()):
        scene = draw_tiny_scene(SMALL, 2, index)
        stored = cv2.imread(str(tmp_path / "images" / image.file_name))[:, :, ::-1]
        np.testing.assert_array_equal(stored, scene.image)
        boxes = np.array([b.box for b in found.boxes[image.number]]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        expected = np.array([o.box for o in scene.objects]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, expected, atol=0.011)
    record = json.loads((tmp_path / "scenes.json").read_text())
    assert record["complete"]
    assert record["num_images"] == 6


def test_statistics_by_hand() -> None:
    flags = {"ignore": False, "uncertain": False, "logo": False, "in_dense_image": False}
    areas = [(49, {}), (64, {}), (143, {}), (400, {}), (10, {"uncertain": True})]
    annotations = [
        {"image_id": 1, "category_id": 1, "area": area, **flags, **more} for area, more in areas
    ]
    annotations[0]["in_dense_image"] = True
    record = describe_annotations(
        {
            "images": [{"id": 1}, {"id": 2}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
    )
    assert record["sizes"] == {"tiny1": 1, "tiny2": 2, "tiny3": 0, "larger": 1}
    assert record["objects"] == {"person": 4}
    assert (record["empty_images"], record["dense_images"], record["uncertain"]) == (1, 1, 1)
