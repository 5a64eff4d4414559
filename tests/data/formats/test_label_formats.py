"""Labels of annotation tools: what files mean, and what survives on the way to another tool."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.data.formats.coco_polygons import ANGLE_CONVENTIONS, CocoRotated
from rsd2.data.formats.label_format import FileForAll, LabelFormat, LabelledImage, LabelledObject
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.map_labels import MapLabels
from rsd2.data.formats.registry import ALL_FORMATS, LABEL_FORMATS, detect_format, find_format
from tests.data.formats.published_labels import (
    HEIGHT,
    PUBLISHED,
    RADIANS,
    TURNED,
    UPRIGHT,
    WIDTH,
    write_place,
)

NAMES = list(LABEL_FORMATS)
SIZES = {"a.png": (300, 400), "empty.png": (300, 400), "far/Ünïcode 船.jpg": (120, 90)}
CLOSE = 1e-4
# Corners of 50 x 20 about (200, 150), turned clockwise on screen by 30 and by 250 degrees.
BOX_30 = [[183.349365, 128.839746], [226.650635, 153.839746], [216.650635, 171.160254],
          [173.349365, 146.160254]]  # fmt: skip
BOX_250 = [[199.153577, 176.912517], [182.052570, 129.927885], [200.846423, 123.087483],
           [217.947430, 170.072115]]  # fmt: skip
TRAPEZE = [[20.5, 20], [60, 25], [55, 40], [22, 38.25]]


def write_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written, data = cv2.imencode(path.suffix, np.zeros((height, width, 3), np.uint8))
    assert written
    path.write_bytes(data.tobytes())
    write_place(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, size in SIZES.items():
        write_image(tmp_path / "images" / name, *size)
    return tmp_path / "images"


def labelled(*shapes: list, **more: object) -> list[LabelledImage]:
    """Objects of both classes in two of the three images."""
    objects = [
        LabelledObject(np.array(shape, float), name, **more)
        for shape, name in zip(shapes, itertools.cycle(["storage tank", "渔船"]))
    ]
    small = [LabelledObject(np.array(BOX_30) / 3, "storage tank", **more)]
    return [
        LabelledImage(name, *size, {"a.png": objects, "empty.png": []}.get(name, small))
        for name, size in SIZES.items()
    ]


def place_of(one: LabelFormat, folder: Path) -> Path:
    if isinstance(one, MapLabels):
        pytest.importorskip("pyogrio")
        return folder / f"{one.name}{one.ending}"
    if not isinstance(one, FileForAll):
        return folder / one.name
    return folder / f"{one.name}{'.xml' if one.name == 'cvat' else '.json'}"


def largest_error(found: list[LabelledImage], truth: list[LabelledImage]) -> float:
    assert [(i.file_name, i.height, i.width) for i in found] == [
        (i.file_name, i.height, i.width) for i in truth
    ]
    pairs = list(zip(found, truth))
    assert all([o.name for o in a.objects] == [o.name for o in b.objects] for a, b in pairs)
    return max(
        float(np.abs(x.polygon - y.polygon).max())
        for a, b in pairs
        for x, y in zip(a.objects, b.objects)
    )


def put(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", [*NAMES, "geojson"])
def test_published_files_mean_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    if name == "geojson":
        pytest.importorskip("rasterio")
    one, folder = ALL_FORMATS[name], tmp_path / "labels"
    files = PUBLISHED[name]()
    put(files, folder)
    # More of them than labels, which must not decide what the folder holds.
    put({f"tile {k}.png.aux.xml": "<PAMDataset/>" for k in range(5)}, folder)
    for image in ("harbour/a b.png", "empty.png"):
        write_image(tmp_path / "images" / image, HEIGHT, WIDTH)
    assert detect_format(folder) is one and one.detect(folder)
    assert [key for key, other in ALL_FORMATS.items() if other.detect(folder)] == [name]

    report = LabelReport()
    path = folder / next(iter(files)) if isinstance(one, FileForAll) else folder
    empty, ship = one.read(path, tmp_path / "images", report=report)
    assert report.total == 0, report.summary()
    assert (empty.file_name, empty.objects) == ("empty.png", [])
    assert (ship.file_name, ship.height, ship.width) == ("harbour/a b.png", HEIGHT, WIDTH)
    assert Path(ship.label_file).is_file()

    turned, upright = ship.objects
    assert (turned.name, upright.name) == ("渔船", "storage tank")
    np.testing.assert_allclose(turned.polygon, TURNED, atol=CLOSE)
    # Masks say nothing about which corner is the first.
    order = np.lexsort(upright.polygon.round(6).T) if name == "coco" else slice(None)
    truth = np.array(UPRIGHT)[np.lexsort(np.array(UPRIGHT).T)] if name == "coco" else UPRIGHT
    np.testing.assert_allclose(upright.polygon[order], truth, atol=CLOSE)
    flags = (1, 0) if "difficult" in one.holds else (0, 0)
    assert (turned.difficult, upright.difficult) == flags
    assert turned.heading == ((77.3, 60.0) if name == "hrsc" else None)


@pytest.mark.parametrize("name", [name for name in NAMES if LABEL_FORMATS[name].name != "dota"])
def test_labels_that_state_sizes_need_no_images(name: str, tmp_path: Path) -> None:
    one, files = LABEL_FORMATS[name], PUBLISHED[name]()
    put(files, tmp_path)
    path = tmp_path / next(iter(files)) if isinstance(one, FileForAll) else tmp_path
    if name == "yolo-obb":
        with pytest.raises(ValueError, match="does not state the sizes .* name the folder"):
            one.read(path)
        return
    found = one.read(path)
    assert sorted(len(image.objects) for image in found) == [0, 2]
    assert {(image.height, image.width) for image in found} == {(HEIGHT, WIDTH)}


@pytest.mark.parametrize(("source", "target"), itertools.product(ALL_FORMATS, ALL_FORMATS))
def test_every_pair_of_formats_keeps_the_corners(
    source: str, target: str, images: Path, tmp_path: Path
) -> None:
    first, second = ALL_FORMATS[source], ALL_FORMATS[target]
    shapes = [
        BOX_30,
        BOX_250,
        *([TRAPEZE] if "quadrilateral" in first.holds & second.holds else []),
    ]
    truth, classes = labelled(*shapes), ("unused", "storage tank", "渔船")
    assert not first.write(place_of(first, tmp_path / "1"), truth, classes=classes, folder=images)

    report = LabelReport()
    between = first.read(place_of(first, tmp_path / "1"), images, report=report)
    assert not second.write(
        place_of(second, tmp_path / "2"), between, classes=classes, folder=images
    )
    found = second.read(place_of(second, tmp_path / "2"), images, report=report)
    assert report.total == 0, report.summary()
    assert largest_error(found, truth) < CLOSE
    assert find_format("auto", place_of(second, tmp_path / "2")) is second


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_what_a_format_cannot_hold_is_counted_and_the_rest_is_kept(
    name: str, images: Path, tmp_path: Path
) -> None:
    one = ALL_FORMATS[name]
    more = {"difficult": 2, "score": 0.625, "heading": (12.5, 7.25)}
    truth = labelled(BOX_30, TRAPEZE, **more)
    losses = one.write(place_of(one, tmp_path), truth, folder=images)
    keys = {"difficult": 3, "score": 3, "heading": 3, "quadrilateral": 1}
    expected = Counter({key: n for key, n in keys.items() if key not in one.holds})
    if "difficult" in one.holds and "cut" not in one.holds:
        expected["cut"] = 3
    assert losses == expected

    found = one.read(place_of(one, tmp_path), images)
    for found_one in (o for image in found for o in image.objects):
        flag = 2 if "cut" in one.holds else int("difficult" in one.holds)
        assert found_one.difficult == flag
        assert found_one.score == (0.625 if "score" in one.holds else None)
        assert found_one.heading == ((12.5, 7.25) if "heading" in one.holds else None)


@pytest.mark.parametrize("convention", ANGLE_CONVENTIONS)
def test_the_fifth_number_of_a_box_means_what_is_asked_for(convention: str, tmp_path: Path) -> None:
    angle = {"degrees-ccw": -30, "degrees-cw": 30, "radians-ccw": -RADIANS, "radians-cw": RADIANS}
    text = PUBLISHED["coco-rotated"]()["instances_default.json"]
    path, again = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(text.replace("-30\n", f"{angle[convention]}\n"), encoding="utf-8")
    found = CocoRotated(convention).read(path)
    np.testing.assert_allclose(found[1].objects[0].polygon, TURNED, atol=CLOSE)
    CocoRotated(convention).write(again, found)
    written = json.loads(again.read_text("utf-8"))["annotations"][0]["bbox"]
    assert written == pytest.approx([60, 50, 40, 20, angle[convention]])
    with pytest.raises(ValueError, match="one of degrees-ccw, .* got 'up'"):
        CocoRotated("up")


def test_a_shape_that_is_no_rectangle_becomes_the_smallest_one_and_starts_where_it_did(
    tmp_path: Path,
) -> None:
    kite = [[50, 50], [90, 52], [90, 70], [50, 70]]
    one = LABEL_FORMATS["rolabelimg"]
    assert one.write(tmp_path / "a", labelled(kite)[:1]) == {"quadrilateral": 1}
    (polygon,) = (o.polygon for o in one.read(tmp_path / "a")[0].objects)
    np.testing.assert_allclose(polygon, [[50, 50], [90, 50], [90, 70], [50, 70]], atol=CLOSE)


def test_counter_clockwise_rectangles_keep_their_place_and_first_corner(tmp_path: Path) -> None:
    backwards = [BOX_30[k] for k in (0, 3, 2, 1)]
    one = LABEL_FORMATS["hrsc"]
    assert not one.write(tmp_path / "a", labelled(backwards)[:1])
    (polygon,) = (o.polygon for o in one.read(tmp_path / "a")[0].objects)
    np.testing.assert_allclose(polygon, BOX_30, atol=CLOSE)


def test_crowds_are_difficult_only_where_the_flag_tells_masks_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = json.loads(PUBLISHED["coco"]()["instances_default.json"])
    mask = content["annotations"][1]
    for others, flag in ([], 0), ([mask | {"id": 92, "category_id": 5, "iscrowd": 0}], 1):
        path.write_text(json.dumps(content | {"annotations": [mask, *others]}))
        assert LABEL_FORMATS["coco"].read(path)[1].objects[0].difficult == flag


def test_missing_labels_and_images_are_named(images: Path, tmp_path: Path) -> None:
    one, report = LABEL_FORMATS["dota"], LabelReport()
    one.write(tmp_path / "labels", labelled(BOX_30))
    (tmp_path / "labels" / "empty.txt").rename(tmp_path / "labels" / "nobody.txt")
    found = one.read(tmp_path / "labels", images, report=report)
    assert [i.file_name for i in found] == list(SIZES) and not found[1].label_file
    assert {p.kind: Path(p.file).name for p in report.problems} == {
        "label_without_image": "nobody.txt",
        "image_without_label": "empty.png",
    }

    report, path = LabelReport(), tmp_path / "a.json"
    LABEL_FORMATS["coco"].write(path, labelled(BOX_30))
    (images / "a.png").rename(images / "b.png")
    write_image(images / "empty.png", 50, 60)
    found = LABEL_FORMATS["coco"].read(path, images, report=report)
    assert [i.file_name for i in found] == ["b.png", "empty.png", "far/Ünïcode 船.jpg"]
    assert {(p.kind, p.fate) for p in report.problems} == {
        ("absent_image", "dropped"),
        ("image_size", "kept"),
        ("image_without_label", "kept"),
    }
    assert "no image 'a.png'" in report.summary() and "1 objects" in report.summary()


def test_nothing_is_overwritten_or_guessed(images: Path, tmp_path: Path) -> None:
    one = LABEL_FORMATS["dota"]
    one.write(tmp_path / "a", labelled(BOX_30))
    with pytest.raises(ValueError, match="is there already"):
        one.write(tmp_path / "a", labelled(BOX_30))
    with pytest.raises(ValueError, match=r"lacks \['storage tank'\]"):
        one.write(tmp_path / "b", labelled(BOX_30), classes=["渔船"])
    twins = [LabelledImage(name, 9, 9, []) for name in ("x.png", "x.jpg")]
    with pytest.raises(ValueError, match=r"Two images .* label file x\.txt; x\.jpg"):
        one.write(tmp_path / "c", twins)
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()
    outside = LabelledImage("../../x.png", 9, 9, [])
    one.write(tmp_path / "d" / "e", [outside])
    assert (tmp_path / "d" / "e" / "x.txt").is_file()

    with pytest.raises(ValueError, match="no label format 'voc'; known are auto, dota"):
        find_format("voc", tmp_path)
    with pytest.raises(FileNotFoundError, match="no labels"):
        find_format("auto", tmp_path / "nowhere")
    for place in images.rglob("*.aux.xml"):
        place.unlink()
    with pytest.raises(ValueError, match="(?s)not recognized.*3 of .png|2 of .png"):
        find_format("auto", images)
    (tmp_path / "via.json").write_text('{"_via_img_metadata": {}}')
    with pytest.raises(ValueError, match="via.json: it looks like VGG Image Annotator JSON"):
        find_format("auto", tmp_path / "via.json")


@pytest.mark.parametrize("name", NAMES)
def test_long_work_shows_a_bar(name: str, images: Path, tmp_path: Path, monkeypatch) -> None:
    seen = []
    bar = lambda items, **options: seen.append((options["unit"], options["delay"])) or items
    monkeypatch.setattr("rsd2.data.formats.label_report.tqdm", bar)
    one = LABEL_FORMATS[name]
    place = place_of(one, tmp_path)
    one.write(place, labelled(BOX_30))
    one.read(place, images)
    # Headers of the images, then one pass over the files, or two over the entries of one file.
    expected = {
        "coco": ["object", "image", "image"],
        "cvat": ["image"] * 3,
        "label-studio": ["image"] * 3,
    }
    expected |= dict.fromkeys(("cvat-coco", "coco-rotated"), expected["coco"])
    assert seen == [(unit, 2) for unit in expected.get(name, ["file", "image", "file"])]


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_another_format_are_refused_by_name(name: str, tmp_path: Path) -> None:
    one = LABEL_FORMATS[name]
    suffix = ".json" if isinstance(one, FileForAll) else one.suffix
    others = {
        ".txt": ("1,7,10,20,4,5,1,1,-1,-1", "rows of tracks"),
        ".xml": ("<html><body/></html>", "a web page"),
        ".json": ('{"_via_img_metadata": {}}', "VGG Image Annotator JSON"),
    }
    suffix = ".xml" if name == "cvat" else suffix
    text, words = others[suffix]
    path = tmp_path / f"a{suffix}"
    path.write_text(text)
    write_image(tmp_path / "images" / "a.png", 20, 30)
    with pytest.raises(ValueError, match=words) as caught:
        one.read(path, tmp_path / "images", classes=["ship"])
    assert path.name in str(caught.value)


def test_numbered_classes_without_names_ask_for_them(images: Path, tmp_path: Path) -> None:
    one = LABEL_FORMATS["yolo-obb"]
    one.write(tmp_path / "a", labelled(BOX_30))
    (tmp_path / "a" / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"(?s)a\.txt:1: .*no name .*data\.yaml"):
        one.read(tmp_path / "a", images)
    found = one.read(tmp_path / "a", images, classes=["storage tank"])
    assert [o.name for i in found for o in i.objects] == ["storage tank"] * 2
    (tmp_path / "a" / "data.yaml").write_text("names: {0: a, 2: b}")
    with pytest.raises(ValueError, match=r"data\.yaml: no list 'names'"):
        one.read(tmp_path / "a", images)


def test_other_lines_of_yolo_are_read_too(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 100, 200)
    lines = "0 .5 .5 .2 .2\n0 .1 .1 .2 .1 .2 .3 .15 .3 .1 .3\n0 .1 .5 .2 .5 .2 .7 .1 .7 0.5 3\n"
    (tmp_path / "a.txt").write_text(lines)
    one = LABEL_FORMATS["yolo-obb"]
    (image,) = one.read(tmp_path, tmp_path / "images", classes=["ship"])
    upright, outline, tracked = image.objects
    assert upright.polygon.tolist() == [[80, 40], [120, 40], [120, 60], [80, 60]]
    assert sorted(outline.polygon.round(6).tolist()) == [[20, 10], [20, 30], [40, 10], [40, 30]]
    assert tracked.score == 0.5 and tracked.polygon[0].tolist() == [20, 50]


@pytest.mark.parametrize("score", [1e-5, 0.1, 1.0, 0.0])
def test_scores_of_yolo_are_no_tracks_however_small(tmp_path: Path, score: float) -> None:
    write_image(tmp_path / "images" / "a.png", 100, 200)
    square = np.array([[20, 10], [60, 10], [60, 40], [20, 40]], dtype=float)
    one = LABEL_FORMATS["yolo-obb"]
    image = LabelledImage("a.png", 100, 200, [LabelledObject(square, "ship", score=score)])
    one.write(tmp_path / "out", [image], classes=["ship"])
    (read,) = one.read(tmp_path / "out", tmp_path / "images")
    assert read.objects[0].score == score

    line = "0 .1 .1 .2 .1 .2 .2 .1 .2 1e-05\n"
    (tmp_path / "b.txt").write_text(line)
    write_image(tmp_path / "images" / "b.png", 100, 200)
    found = one.read(tmp_path / "b.txt", tmp_path / "images", classes=["ship"])
    assert [o.score for i in found for o in i.objects] == [1e-5]


def test_angles_are_clockwise_on_screen() -> None:
    """The expected corners of this file, from the definition: x' = x cos - y sin, with y down."""
    for degrees, truth in ((30, BOX_30), (250, BOX_250)):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        local = ((-25, -10), (25, -10), (25, 10), (-25, 10))
        corners = [[200 + x * cos - y * sin, 150 + x * sin + y * cos] for x, y in local]
        np.testing.assert_allclose(corners, truth, atol=1e-5)


def test_a_file_of_cvat_with_masks_that_all_are_crowds(tmp_path: Path) -> None:
    """As CVAT 2 exports a task: two images, one of them empty, and ids that go on from others."""
    path, (height, width) = tmp_path / "instances.json", (60, 80)
    runs = [[k * height + 10, *[4, height - 4] * 11, 4] for k in (5, 30)]
    for counts in runs:
        counts.append(height * width - sum(counts))
    content = {
        "images": [
            {"id": k, "file_name": f"port_{k}.tif", "height": height, "width": width}
            for k in (41, 42)
        ],
        "categories": [{"id": 9, "name": "ship", "supercategory": ""}],
        "annotations": [
            {"id": 700 + k, "image_id": 42, "category_id": 9, "iscrowd": 1, "area": 48.0,
             "segmentation": {"counts": counts, "size": [height, width]},
             "bbox": [0.0, 0.0, 1.0, 1.0], "attributes": {"occluded": False}}
            for k, counts in enumerate(runs)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    report = LabelReport()
    empty, port = detect_format(path).read(path, report=report)
    assert report.total == 0 and not empty.objects
    assert [one.difficult for one in port.objects] == [0, 0]
    for one, left in zip(port.objects, (5, 30)):
        low, high = one.polygon.min(axis=0).round(6), one.polygon.max(axis=0).round(6)
        assert [*low, *high] == [left, 10, left + 12, 14]


def test_tasks_of_label_studio_that_nobody_labelled_are_named(tmp_path: Path) -> None:
    tasks = json.loads(PUBLISHED["label-studio"]()["tasks.json"])
    for empty in ("a b.png", "empty.png"):
        write_image(tmp_path / "images" / empty, HEIGHT, WIDTH)
    tasks[0]["annotations"] = []
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))

    report = LabelReport()
    images = LABEL_FORMATS["label-studio"].read(
        tmp_path / "tasks.json", tmp_path / "images", report=report
    )
    assert [len(image.objects) for image in images] == [0, 0]
    (message,) = [p.message for p in report.problems if p.kind == "image_without_label"]
    assert "has no finished annotation and no prediction" in message
