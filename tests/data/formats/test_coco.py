"""Reading of COCO files of boxes: what is wrong is counted, named, and never passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsd2.data.formats.coco import CocoFile, read_coco_file
from rsd2.data.formats.label_report import LabelReport


def content() -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 100, "width": 200},
            {"id": 8, "file_name": "b.png", "height": 100, "width": 200},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 20, 4, 8], "area": 30,
             "ignore": True, "in_dense_image": 1},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "sea_person"}, {"id": 2, "name": "earth_person"}],
    }  # fmt: skip


def read(tmp_path: Path, data: dict, **options) -> tuple[CocoFile, LabelReport]:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    report = LabelReport()
    return read_coco_file(path, report, **options), report


def test_reads_boxes_flags_and_images_without_boxes(tmp_path: Path) -> None:
    found, report = read(tmp_path, content())
    first, second = found.boxes[7]
    assert first.box == (10, 20, 4, 8)
    assert first.area == 30
    assert first.flags == {"ignore", "in_dense_image"}
    assert second.is_crowd
    assert second.area == 25  # none is stated
    assert found.boxes[8] == []
    assert report.total == 0
    assert (report.images, report.objects) == (2, 2)


def test_tracks_are_whole_numbers_and_others_cost_no_box(tmp_path: Path) -> None:
    data = content()
    box = data["annotations"][0]
    tracks = [5, 6.0, None, "car_12", 1.5, float("inf"), float("nan")]
    data["annotations"] = [
        {**box, "bbox": [k, 20, 4, 8], "track_id": track} for k, track in enumerate(tracks)
    ]
    found, report = read(tmp_path, data)
    assert [b.track for b in found.boxes[7]] == [5, 6, None, None, None, None, None]
    assert report.count("track_number", "kept") == 4 == report.total
    assert "'car_12'" in report.problems[0].message


UUID = "3f0c6d2e-8a41-4c7b-9d55-0e1f2a3b4c5d"


@pytest.mark.parametrize(
    ("in_images", "in_annotations", "number"),
    [("7", 7, 7), (7, "7", 7), (7.0, " 7 ", 7), (UUID, UUID, UUID), ("007", "007", "007")],
)
def test_ids_of_both_sides_are_of_one_type(
    tmp_path: Path, in_images: object, in_annotations: object, number: object
) -> None:
    data = content()
    data["images"][0]["id"] = in_images
    data["categories"][0]["id"], data["categories"][1]["id"] = "1", "ship-class"
    for annotation, category in zip(data["annotations"], ("ship-class", 1.0)):
        annotation |= {"image_id": in_annotations, "category_id": category}
    found, report = read(tmp_path, data)
    assert report.total == 0
    assert list(found.images) == [number, 8] and found.categories.keys() == {1, "ship-class"}
    assert [box.category for box in found.boxes[number]] == ["ship-class", 1]


@pytest.mark.parametrize(
    ("value", "is_set"),
    [("0", False), ("false", False), ("False", False), (None, False), ("", False), (0.0, False)]
    + [("1", True), ("true", True), (1, True), (True, True), (1.0, True)],
)
def test_booleans_that_arrive_as_text_are_booleans(
    tmp_path: Path, value: object, is_set: bool
) -> None:
    data = content()
    data["annotations"][1] |= {"iscrowd": value, "ignore": value}
    box = read(tmp_path, data)[0].boxes[7][1]
    assert box.is_crowd is is_set and ("ignore" in box.flags) is is_set


def test_a_corner_is_the_window_and_its_size(tmp_path: Path) -> None:
    data = content()
    data["images"][0] |= {"corner": [640.0, 0, 1280, 512], "height": 1, "width": 1}
    image = read(tmp_path, data)[0].images[7]
    assert image.corner == (640, 0, 1280, 512)
    assert (image.width, image.height) == (640, 512)


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ({"image_id": 99}, "unknown_image", "image id 99"),
        ({"category_id": 5}, "unknown_category", "category id 5"),
        ({"bbox": [1, 2, 3]}, "coco_annotation", "annotations[2]"),
        ({"bbox": "all"}, "coco_annotation", "annotations[2]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "non_finite", "a.png"),
        ({"bbox": [1, 2, 0, 4]}, "box_without_area", "id 3"),
        ({"bbox": [1, 2, 5, -4]}, "box_without_area", "-4"),
        ({"bbox": [1, 2, 1e12, 4]}, "non_finite", "1000000000000.0"),
        ({"image_id": [7]}, "coco_annotation", "the id [7] is no whole number and no text"),
        ({"image_id": {"a": 1}}, "coco_annotation", "annotations[2]: ValueError"),
        ({"image_id": 7.5}, "coco_annotation", "7.5 is no whole number"),
        ({"category_id": None}, "coco_annotation", "None is no whole number"),
        ({"iscrowd": "maybe"}, "coco_annotation", "'maybe' is neither true nor false"),
        ({"iscrowd": 2}, "coco_annotation", "2 is neither true nor false"),
        ({"bbox": [1, 2, True, 4]}, "coco_annotation", "True is no number"),
        ({"bbox": [1, 2, "1_0", 4]}, "coco_annotation", "'1_0'"),
    ],
)
def test_bad_annotations_are_counted_and_named(
    tmp_path: Path, entry: dict, kind: str, words: str
) -> None:
    data = content()
    whole = {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
    data["annotations"].append(whole | entry)
    found, report = read(tmp_path, data)
    assert len(found.boxes[7]) == 2
    assert report.count(kind) == report.total == 1
    assert words in str(report.problems[0])
    assert "labels.json" in str(report.problems[0])


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"id": 9, "file_name": "c.png"}, "coco_image"),
        ({"id": 9, "file_name": "c.png", "height": 0, "width": 5}, "coco_image"),
        ({"id": 9, "file_name": "c.png", "corner": [5, 5, 5, 9]}, "coco_image"),
        ("c.png", "coco_image"),
        ({"id": [9], "file_name": "c.png", "height": 5, "width": 5}, "coco_image"),
        ({"id": 9, "file_name": None, "height": 5, "width": 5}, "coco_image"),
        ({"id": 9, "file_name": "c.png", "height": 5.5, "width": 5}, "coco_image"),
        ({"id": "7", "file_name": "c.png", "height": 5, "width": 5}, "duplicate_id"),
        ({"id": 7, "file_name": "c.png", "height": 5, "width": 5}, "duplicate_id"),
    ],
)
def test_bad_images_are_counted(tmp_path: Path, entry: object, kind: str) -> None:
    data = content()
    data["images"].append(entry)
    found, report = read(tmp_path, data)
    assert set(found.images) == {7, 8}
    assert report.count(kind) == 1


@pytest.mark.parametrize(
    ("policy", "box", "area", "fates"),
    [
        ("keep", [190, 90, 20, 20], 400, {("crossing_border", "kept"): 1}),
        ("clip", [190, 90, 20, 20], 100, {("crossing_border", "clipped"): 1}),
        ("drop", [190, 90, 20, 20], None, {("crossing_border", "dropped"): 1}),
        ("keep", [300, 0, 5, 5], 25, {("outside_image", "kept"): 1}),
        ("clip", [300, 0, 5, 5], None, {("outside_image", "dropped"): 1}),
        ("drop", [199, 0, 1.5, 5], 7.5, {}),  # half a pixel is rounding
    ],
)
def test_border_policies(
    tmp_path: Path, policy: str, box: list[float], area: float | None, fates: dict
) -> None:
    data = content()
    data["annotations"] = [{"id": 3, "image_id": 7, "category_id": 1, "bbox": box}]
    found, report = read(tmp_path, data, out_of_image=policy)
    assert [b.area for b in found.boxes[7]] == ([] if area is None else [area])
    assert dict(report.counts) == fates


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [}', "labels.json:1:13"),
        ("[]", "has no list images, annotations, categories"),
        ('{"shapes": [], "imagePath": "a"}', "it looks like LabelMe or X-AnyLabeling JSON, which"),
        ('[{"data": {}, "annotations": []}]', "Label Studio JSON, which rsd2 does not read yet"),
        ('{"type": "FeatureCollection", "features": []}', "it looks like GeoJSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "it looks like SODA-A JSON"),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}]',
            "COCO results, which rsd2.evaluation.files.coco_results.read_coco_results reads",
        ),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list annotations"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "categories[0]"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, '
            '{"id": 1, "name": "b"}]}',
            "category id 1 is there twice",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_coco_file(path, LabelReport())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"bbox": [9, 9, 5, 5, 30]}], "it looks like COCO JSON of rotated boxes, which rsd2 does"),
        ([{"bbox": [0.1, 0.2, 0.3, 0.1]}] * 2, "the 2 boxes of .* COCO JSON with boxes divided by"),
        ([{"image_id": 99}, {"category_id": 99}], "(?s)None of the 2 annotations .*unknown_image"),
    ],
)
def test_annotations_of_which_none_is_a_box_in_pixels_are_refused(
    tmp_path: Path, entries: list[dict], words: str
) -> None:
    data = content()
    whole = {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
    data["annotations"] = [whole | entry for entry in entries]
    with pytest.raises(ValueError, match=words):
        read(tmp_path, data)


def test_repeated_annotations_are_reported_and_kept(tmp_path: Path) -> None:
    data = content()
    data["annotations"].append({**data["annotations"][0], "id": 9})
    found, report = read(tmp_path, data)
    assert len(found.boxes[7]) == 3 and report.count("duplicate_object", "kept") == 1
    assert "annotation id 9 of a.png repeats another" in report.problems[0].message


def test_missing_files_and_unknown_policies(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="labels.json"):
        read_coco_file(tmp_path / "labels.json", LabelReport())
    with pytest.raises(ValueError, match="keep, clip, drop"):
        read_coco_file(tmp_path / "labels.json", LabelReport(), out_of_image="cut")
