"""COCO files of boxes as datasets: dicts, windows, policies."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.datasets import (
    PERSON_ALIASES,
    load_coco_boxes,
    make_box_tiles,
    register_all_tiny,
    register_box_tiles,
    register_coco_boxes,
)
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.windows.box_tiling import BoxTiling


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 200 x 100 px, one of them in a folder of its own and dense."""
    (tmp_path / "images" / "far").mkdir(parents=True)
    for name in ("a.png", "far/b.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((100, 200, 3), np.uint8))
    fields = {"iscrowd": 0, "ignore": False, "uncertain": False, "logo": False}
    boxes = [
        (1, 1, [10, 10, 4, 8], {}),
        (1, 2, [90, 10, 20, 10], {"uncertain": True}),
        (1, 3, [50, 50, 9, 9], {}),
        (2, 1, [0, 0, 5, 5], {"in_dense_image": True}),
    ]
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 100, "width": 200},
            {"id": 2, "file_name": "far/b.png", "height": 100, "width": 200},
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3],
             "in_dense_image": False, **fields, **more}
            for n, (i, c, b, more) in enumerate(boxes)
        ],
        "categories": [
            {"id": 1, "name": "sea_person"},
            {"id": 2, "name": "earth_person"},
            {"id": 3, "name": "dog"},
        ],
    }  # fmt: skip
    (tmp_path / "labels.json").write_text(json.dumps(data))
    return tmp_path


def load(folder: Path, **options) -> list[dict]:
    options.setdefault("aliases", PERSON_ALIASES)
    return load_coco_boxes(folder / "labels.json", folder / "images", ["person"], **options)


def test_dicts(folder: Path) -> None:
    report = LabelReport()
    first, second = load(folder, report=report)
    assert first["image_id"] == "a.png"
    assert second["file_name"] == str(folder / "images" / "far" / "b.png")
    assert (first["height"], first["width"], first["json_id"]) == (100, 200, 1)
    assert [a["category_id"] for a in first["annotations"]] == [0, 0]  # both are persons
    annotation = first["annotations"][1]
    assert annotation["bbox"] == [90, 10, 20, 10]
    assert annotation["bbox_mode"] == BoxMode.XYWH_ABS
    flags = {name: annotation[name] for name in ("ignore", "uncertain", "logo", "in_dense_image")}
    assert flags == {"ignore": False, "uncertain": True, "logo": False, "in_dense_image": False}
    assert report.count("unknown_class") == 1
    assert "'dog' (id 3, 1 boxes)" in str(report.problems[0])
    quiet = LabelReport()
    assert load(folder, report=quiet, unknown_class="ignore") == [first, second]
    assert quiet.total == 0


def test_dense_images_are_left_out_if_wanted(folder: Path) -> None:
    assert [record["image_id"] for record in load(folder, dense="drop")] == ["a.png"]


def test_all_windows_of_a_dense_image_are_left_out(folder: Path) -> None:
    data = json.loads((folder / "labels.json").read_text())
    for k, corner in enumerate(([0, 0, 100, 100], [100, 0, 200, 100])):
        data["images"].append({"id": 10 + k, "file_name": "far/b.png", "corner": corner})
    data["annotations"][-1]["image_id"] = 10
    data["images"].pop(1)
    (folder / "labels.json").write_text(json.dumps(data))
    assert [record["image_id"] for record in load(folder, dense="drop")] == ["a.png"]
    assert len(load(folder)) == 3


def test_crowds_are_to_be_ignored(folder: Path) -> None:
    data = json.loads((folder / "labels.json").read_text())
    data["annotations"][0]["iscrowd"] = 1
    (folder / "labels.json").write_text(json.dumps(data))
    annotation = load(folder)[0]["annotations"][0]
    assert annotation["ignore"] is True
    assert annotation["iscrowd"] == 0


@pytest.mark.parametrize(
    "name",
    ["./far/b.png", "x/../far/b.png", "far//b.png", "far\\b.png", "FAR/B.PNG", "Far/b.PNG"]
    + ["{folder}/images/far/b.png", "D:\\data\\images\\far\\b.png", "/other/images/far/b.png"],
)
def test_file_names_are_paths_and_not_text(folder: Path, name: str) -> None:
    data = json.loads((folder / "labels.json").read_text())
    expected = load(folder)
    data["images"][1]["file_name"] = name.format(folder=folder)
    (folder / "labels.json").write_text(json.dumps(data))
    assert load(folder) == expected
    data["images"].append({**data["images"][1], "id": 5, "file_name": "far/b.png"})
    (folder / "labels.json").write_text(json.dumps(data))
    report = LabelReport()
    assert load(folder, report=report) == expected
    assert report.count("duplicate_id") == 1, "the same image, spelt otherwise"


def test_linked_folders_and_files_elsewhere_are_found(folder: Path) -> None:
    (folder / "images" / "far").rename(folder / "elsewhere")
    (folder / "images" / "far").symlink_to(folder / "elsewhere")
    (folder / "images" / "loop").symlink_to(folder / "images")
    assert [r["image_id"] for r in load(folder)] == ["a.png", "far/b.png"]
    (folder / "images" / "far").unlink()
    text = (folder / "labels.json").read_text()
    for name in ("../elsewhere/b.png", f"{folder}/elsewhere/b.png"):
        (folder / "labels.json").write_text(text.replace("far/b.png", name))
        assert Path(load(folder)[1]["file_name"]).samefile(folder / "elsewhere" / "b.png")
    (folder / "images" / "A.png").write_bytes((folder / "images" / "a.png").read_bytes())
    (folder / "labels.json").write_text(text.replace("a.png", "a.PNG"))
    with pytest.raises(FileNotFoundError, match=r"a\.PNG"):  # which of the two cannot be told
        load(folder)


def test_class_names_with_blanks_are_accepted(folder: Path) -> None:
    text = (folder / "labels.json").read_text().replace("dog", "storage tank")
    (folder / "labels.json").write_text(text)
    files = (folder / "labels.json", folder / "images")
    (found, _) = load_coco_boxes(*files, ["storage tank"], unknown_class="ignore")
    assert [a["bbox"] for a in found["annotations"]] == [[50, 50, 9, 9]]
    try:
        register_coco_boxes("coco_of_tanks", {"thing_classes": ["storage tank"]}, *files)
    finally:
        DatasetCatalog.remove("coco_of_tanks")
        MetadataCatalog.remove("coco_of_tanks")


def test_missing_images(folder: Path) -> None:
    (folder / "images" / "far" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)1 of 2 images .*b\.png"):
        load(folder)
    report = LabelReport()
    assert len(load(folder, missing_image="drop", report=report)) == 1
    assert report.count("missing_image") == 1
    (folder / "images" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match="2 of 2"):
        load(folder, missing_image="drop")
    with pytest.raises(FileNotFoundError, match="image folder"):
        load_coco_boxes(folder / "labels.json", folder / "nowhere", ["person"])


@pytest.mark.parametrize(
    "option", [{"missing_image": "skip"}, {"dense": "maybe"}, {"unknown_class": "x"}]
)
def test_unknown_policies(folder: Path, option: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(option.values()))):
        load(folder, **option)


def test_aliases_must_lead_to_classes(folder: Path) -> None:
    with pytest.raises(ValueError, match="swimmer"):
        load(folder, aliases={"sea_person": "swimmer"})


def test_entries_of_one_file_must_differ(folder: Path) -> None:
    data = json.loads((folder / "labels.json").read_text())
    data["images"].append({**data["images"][0], "id": 3})
    (folder / "labels.json").write_text(json.dumps(data))
    report = LabelReport()
    assert len(load(folder, report=report)) == 2
    assert report.count("duplicate_id") == 1


def test_corner_entries_are_virtual_windows(folder: Path) -> None:
    data = json.loads((folder / "labels.json").read_text())
    data["images"][0]["corner"] = [100, 0, 200, 80]
    (folder / "labels.json").write_text(json.dumps(data))
    record = load(folder)[0]
    assert record["tile"] == {
        "source_id": "a.png", "x": 100, "y": 0, "width": 100, "height": 80, "virtual": True,
    }  # fmt: skip
    assert (record["width"], record["height"]) == (100, 80)
    assert record["image_id"] == "a.png__100__100___0"


def test_virtual_windows_of_whole_images(folder: Path) -> None:
    records = load(folder)
    tiling = BoxTiling(window=(100, 100), overlap=(0, 0), keep_fragments=True)
    tiles = make_box_tiles(records, tiling)
    assert [tile["tile"]["x"] for tile in tiles] == [0, 100, 0, 100]
    assert tiles[0]["tile"]["source_width"] == 200
    halves = [tiles[k]["annotations"][-1] for k in (0, 1)]
    assert [half["bbox"] for half in halves] == [[90, 10, 10, 10], [0, 10, 10, 10]]
    assert [half["area"] for half in halves] == [100, 100]
    assert [half["ignore"] for half in halves] == [False, False]  # half of the area is enough
    assert len(records[0]["annotations"]) == 2  # unchanged
    assert records[0]["annotations"][1]["area"] == 200
    boxed = make_box_tiles(records, BoxTiling(window=(100, 100), overlap=(0, 0), keep_empty=False))
    assert [len(tile["annotations"]) for tile in boxed] == [2, 1, 1]


def test_registration(folder: Path) -> None:
    name = f"boxes_{folder.name}"
    metadata = {"thing_classes": ["person"]}
    try:
        register_coco_boxes(
            name, metadata, folder / "labels.json", folder / "images", aliases=PERSON_ALIASES
        )
        register_box_tiles(f"{name}_tiles", name, window=(100, 100), overlap=(0, 0))
        assert len(DatasetCatalog.get(f"{name}_tiles")) == 4
        tiles = MetadataCatalog.get(f"{name}_tiles")
        assert tiles.thing_classes == ["person"]
        assert tiles.source_dataset == name
        with pytest.raises(ValueError, match="overlap"):
            register_box_tiles("never", name, window=(100, 100), overlap=(100, 0))
    finally:
        for registered in (name, f"{name}_tiles"):
            DatasetCatalog.remove(registered)
            MetadataCatalog.remove(registered)


def test_known_data_sets_move_with_their_root(tmp_path: Path) -> None:
    before = MetadataCatalog.get("tiny_person_test").builtin_root
    try:
        register_all_tiny(tmp_path)
        for name in ("tiny_person_test", "aitodv2_trainval", "synthetic_tiny_val"):
            assert MetadataCatalog.get(name).builtin_root == str(tmp_path)
        tiles = MetadataCatalog.get("tiny_person_test_640x512_100")
        assert tiles.source_dataset == "tiny_person_test"
        assert MetadataCatalog.get("synthetic_tiny_val").thing_classes == ["person", "boat"]
        with pytest.raises(FileNotFoundError, match="tiny_set"):
            DatasetCatalog.get("tiny_person_test_640x512_100")
    finally:
        register_all_tiny(before)
