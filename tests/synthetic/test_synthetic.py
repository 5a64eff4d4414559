"""Synthetic scenes: labels fit the drawings, scenes depend on the seed alone, folders resume."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest

from rsd2.synthetic import (
    LEAST_SHARE,
    SYNTHETIC_CLASSES,
    VISIBLE_SHARE,
    SceneConfig,
    draw_scene,
    write_dota_scenes,
    writer,
)
from rsd2.synthetic.canvas import Canvas, Pen
from rsd2.synthetic.scenes.objects import OBJECT_CLASSES
from rsd2.synthetic.scenes.site import Site, inside_share, rectangle
from rsd2.synthetic.textures import LAND, PAVED, WATER

BACKGROUND = (255, 0, 255)
SMALL = SceneConfig(size=128, scale=0.8)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """OpenCV's threads wait for each other on a busy machine; the drawings are small."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Exact IoU of two convex polygons."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    area, _ = cv2.intersectConvexConvex(a, b)
    return area / (cv2.contourArea(a) + cv2.contourArea(b) - area)


def drawn_points(canvas: Canvas) -> np.ndarray:
    """Centres of all drawn sub-pixels, in image pixels."""
    rows, columns = np.nonzero((canvas.image != BACKGROUND).any(axis=2))
    return (np.stack([columns, rows], axis=1) + 0.5) / canvas.supersample


def flat_canvas(supersample: int) -> Canvas:
    canvas = Canvas(160, 160, supersample, (0.7, 0.4))
    canvas.image[:] = BACKGROUND
    return canvas


def enclosing(points: np.ndarray, heading: float) -> np.ndarray:
    """Tight rectangle of a given direction around points.

    The centres of drawn sub-pixels give the sides of a turned rectangle without bias: cv2 draws the
    outline too, so that the outermost centres lie on it.
    """
    axes = np.array(
        [(math.cos(heading), math.sin(heading)), (-math.sin(heading), math.cos(heading))]
    )
    local = points @ axes.T
    low, high = local.min(axis=0), local.max(axis=0)
    return rectangle((low + high) / 2 @ axes, heading, *(high - low))


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
@pytest.mark.parametrize(("supersample", "scale"), [(4, 0.8), (2, 1.0)])
def test_label_fits_the_drawn_object(name: str, supersample: int, scale: float) -> None:
    kind, rng = OBJECT_CLASSES[name], Random(3)
    for style in range(24):
        share = (style % 4) / 3
        length = kind.length[0] * (kind.length[1] / kind.length[0]) ** share * scale
        width = length * (kind.aspect[0] + (kind.aspect[1] - kind.aspect[0]) * share)
        heading = rng.uniform(-math.pi, math.pi)
        center = (80 + rng.random(), 80 + rng.random())
        label = rectangle(center, heading, length, width)
        canvas = flat_canvas(supersample)
        kind.draw(Pen(canvas, center, heading, length, width), Random(style))
        points = drawn_points(canvas)
        assert iou(label, enclosing(points, heading)) >= 0.9
        # The free minimum-area rectangle of a plane may stand across it, that of a disc anywhere.
        if name not in ("plane", "storage-tank"):
            box = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
            assert iou(label, box) >= 0.9


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_placed_object_is_drawn_where_its_label_says(name: str) -> None:
    site = Site(np.random.default_rng(1), 160, 160, 1.0, "grass", 5, 0.6)
    assert site.place(name, 3, -4, 1.1, site.sample_size(name, high=90), LAND | WATER | PAVED)
    canvas = flat_canvas(4)
    site.draw(canvas, 0.0)
    placed = site.objects[0]
    box = enclosing(drawn_points(canvas), placed.heading)
    assert iou(placed.corners(), box) >= 0.9


def test_shadow_falls_away_from_the_sun_and_darkens_what_it_covers() -> None:
    canvas = Canvas(60, 60, 4, (1.0, 0.0))
    canvas.image[:] = 200
    square = rectangle((20, 30), 0.0, 10, 10)
    canvas.cast_shadow(square, 12.0)
    assert canvas.shadow_share(rectangle((32, 30), 0.0, 8, 8)) == 1.0
    assert canvas.shadow_share(rectangle((10, 30), 0.0, 6, 6)) == 0.0
    assert canvas.shadow_share(rectangle((37, 30), 0.0, 8, 8)) == pytest.approx(0.5, abs=0.07)
    assert canvas.shadow_share(rectangle((-50, 300), 0.0, 8, 8)) == 0.0
    canvas.apply_shadows(0.5)
    image = canvas.downsample()
    dark = image[..., 0] < 150
    assert dark[26:34, 16:36].all()
    assert not dark[:, 38:].any() and not dark[:, :14].any() and not dark[:24].any()
    assert int(image[30, 25, 0]) == pytest.approx(100, abs=3)
    canvas.apply_shadows(0.5)  # nothing is pending any more
    assert (canvas.downsample() == image).all()


def test_ship_points_forward() -> None:
    for style in range(12):
        canvas = flat_canvas(4)
        OBJECT_CLASSES["ship"].draw(Pen(canvas, (80, 80), 0.0, 60, 15), Random(style))
        mask = (canvas.image != BACKGROUND).any(axis=2)
        bow, stern = mask[:, int(4 * 107)].sum(), mask[:, int(4 * 53)].sum()
        assert 0 < bow < 0.7 * stern


def test_first_vertex_is_front_left_and_the_order_clockwise() -> None:
    corners = rectangle((10, 20), 0.0, 8, 4)  # heads to the right: its left is up on screen
    assert corners.tolist() == [[14, 18], [14, 22], [6, 22], [6, 18]]
    for index in range(12):
        for poly, name, _ in draw_scene(SMALL, 3, index).objects:
            x, y = poly.T
            assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0
            if name == "storage-tank":
                assert poly[0] == pytest.approx(poly.min(axis=0))
                assert poly[2] == pytest.approx(poly.max(axis=0))


@pytest.mark.parametrize("config", [SMALL, SceneConfig(size=384)], ids=["128", "384"])
def test_labels_do_not_overlap_and_lie_in_the_image(config: SceneConfig) -> None:
    for index in range(40 if config is SMALL else 12):
        objects = draw_scene(config, 11, index).objects
        polys = [item.poly for item in objects]
        assert len(polys) <= config.max_objects
        for i, item in enumerate(objects):
            share = inside_share(item.poly, *config.size)
            assert share >= LEAST_SHARE
            assert (item.difficult == 2) == (share < VISIBLE_SHARE)
            sides = np.linalg.norm(item.poly - np.roll(item.poly, -1, axis=0), axis=1)
            assert sides.min() >= 4.99
            for j in range(i):
                assert iou(polys[i], polys[j]) < 0.1, (item.name, objects[j].name)


def test_scene_depends_on_seed_and_index_alone() -> None:
    first = draw_scene(SMALL, 5, 7)
    draw_scene(SMALL, 5, 8)
    again = draw_scene(SMALL, 5, 7)
    assert (first.image == again.image).all()
    assert [(o.poly.tolist(), *o[1:]) for o in first.objects] == [
        (o.poly.tolist(), *o[1:]) for o in again.objects
    ]
    for other in (draw_scene(SMALL, 6, 7), draw_scene(SMALL, 5, 8)):
        assert (first.image != other.image).mean() > 0.5


def test_every_class_is_frequent_in_small_scenes() -> None:
    counts, cut = Counter(), 0
    numbers = []
    for index in range(200):
        objects = draw_scene(SMALL, 0, index).objects
        numbers.append(len(objects))
        counts.update(item.name for item in objects)
        cut += sum(item.difficult == 2 for item in objects)
    total = sum(counts.values())
    assert all(counts[name] > 0.035 * total for name in SYNTHETIC_CLASSES), counts
    assert max(counts.values()) < 0.5 * total
    assert 4 < np.mean(numbers) < 15
    assert 0 < cut < 0.15 * total


@pytest.mark.parametrize("size", [(96, 160), (200, 64), (32, 32)])
def test_any_image_size(size: tuple[int, int]) -> None:
    scene = draw_scene(SceneConfig(size=size, scale=0.8), 0, 1)
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.image.flags["C_CONTIGUOUS"]


def test_scale_multiplies_the_objects() -> None:
    def car_length(size: int, scale: float) -> float:
        config = SceneConfig(size=size, scale=scale, theme_weights={"parking": 1.0})
        objects = [o for index in range(4) for o in draw_scene(config, 2, index).objects]
        cars = [o.poly for o in objects if o.name == "small-vehicle"]
        return float(np.mean([np.linalg.norm(poly[0] - poly[3]) for poly in cars]))

    assert car_length(256, 2.0) / car_length(128, 1.0) == pytest.approx(2.0, rel=0.03)


def test_empty_scenes_and_the_objects_in_the_others() -> None:
    empty = SceneConfig(size=128, scale=0.8, empty_fraction=1.0)
    assert not any(draw_scene(empty, 0, index).objects for index in range(10))
    full = SceneConfig(size=128, scale=0.8, empty_fraction=0.0)
    assert np.mean([bool(draw_scene(full, 0, index).objects) for index in range(30)]) > 0.8


def test_objects_stand_out_from_the_ground() -> None:
    config = SceneConfig(size=128, scale=0.8, empty_fraction=0.0)
    weak = total = 0
    for index in range(25):
        scene = draw_scene(config, 9, index)
        for poly, _, _ in scene.objects:
            mask = np.zeros(scene.image.shape[:2], dtype=np.uint8)
            cv2.fillPoly(mask, [np.rint(poly).astype(np.int32)], 1)
            ring = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - mask
            if not mask.any() or not ring.any():
                continue
            inside, outside = (
                scene.image[mask > 0].astype(float),
                scene.image[ring > 0].astype(float),
            )
            gap = np.abs(inside.mean(axis=0) - outside.mean(axis=0)).max()
            weak += max(gap, inside.std(axis=0).max()) < 12
            total += 1
    assert total > 60
    assert weak <= 0.03 * total


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, "size must be"),
        ({"size": (128, 128, 3)}, "size must be"),
        ({"scale": 0.0}, "scale must lie"),
        ({"scale": math.nan}, "scale must lie"),
        ({"empty_fraction": 1.5}, "empty_fraction must lie"),
        ({"theme_weights": {"desert": 1.0}}, "unknown themes"),
        ({"theme_weights": {"river": 0.0}}, "at least one > 0"),
        ({"theme_weights": {}}, "at least one > 0"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneConfig(**arguments)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed and index"):
        draw_scene(SMALL, -1, 0)


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_folder_has_the_format(tmp_path: Path) -> None:
    write_dota_scenes(tmp_path / "one", 6, SMALL, seed=4, progress=False)
    one = contents(tmp_path / "one")
    assert len(one) == 2 * 6 + 1  # and no temporary file

    record = json.loads(one["scenes.json"])
    assert record["complete"]
    assert record["classes"] == list(SYNTHETIC_CLASSES)
    objects = Counter()
    for index in range(6):
        scene = draw_scene(SMALL, 4, index)
        image = cv2.imread(str(tmp_path / "one" / "images" / f"S{index:06d}.png"))
        assert (image[..., ::-1] == scene.image).all()
        lines = one[f"labelTxt/S{index:06d}.txt"].decode().splitlines()
        assert lines[:2] == ["imagesource:synthetic", "gsd:0.4125"]
        assert len(lines) == 2 + len(scene.objects)
        for line, item in zip(lines[2:], scene.objects):
            fields = line.split()
            assert np.array(fields[:8], float) == pytest.approx(item.poly.ravel(), abs=0.0051)
            assert fields[8:] == [item.name, str(item.difficult)]
            objects[item.name] += 1
    assert record["objects"] == {name: objects[name] for name in SYNTHETIC_CLASSES}


def test_interrupted_folder_is_finished_and_kept_files_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writer.draw_scene

    def failing(config: SceneConfig, seed: int, index: int):
        if index == 2:
            raise KeyboardInterrupt
        return real(config, seed, index)

    monkeypatch.setattr(writer, "draw_scene", failing)
    with pytest.raises(KeyboardInterrupt):
        write_dota_scenes(tmp_path / "a", 4, SMALL, progress=False)
    assert not json.loads((tmp_path / "a" / "scenes.json").read_text())["complete"]
    first = tmp_path / "a" / "labelTxt" / "S000000.txt"
    os.utime(first, (1, 1))
    monkeypatch.setattr(writer, "draw_scene", real)
    write_dota_scenes(tmp_path / "a", 4, SMALL, progress=False)
    write_dota_scenes(tmp_path / "b", 4, SMALL, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first.stat().st_mtime == 1


def test_imports_without_detectron2_and_torch(repository: Path) -> None:
    code = (
        "import sys; sys.modules['detectron2'] = sys.modules['torch'] = None\n"
        "import rsd2.synthetic as s; print(len(s.draw_scene(s.SceneConfig(size=64), 0, 0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
