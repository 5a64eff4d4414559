"""RsCarData: four kinds of labels of the same videos, windows, and what is wrong with files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.datasets import load_rscardata, register_rscardata
from rsd2.data.formats.label_report import LabelReport
from rsd2.synthetic import RSCARDATA_SPLITS, VideoConfig, write_videos

CONFIG = VideoConfig(size=(64, 80), num_frames=7, density=12.0, old_label_drop=0.4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_videos(tmp_path, "train", 2, CONFIG, seed=0, progress=False)
    write_videos(tmp_path, "test", 2, CONFIG, seed=1, progress=False)
    return tmp_path


def boxes(records: list[dict]) -> dict[str, list[list[float]]]:
    return {r["image_id"]: [list(a["bbox"]) for a in r["annotations"]] for r in records}


def test_record_has_everything_a_clip_needs(root: Path) -> None:
    records = load_rscardata(root, "train", "new")
    assert len(records) == 14
    record = records[9]  # third frame of the second video
    folder = f"{root}/images/train/002/img1"
    assert record["file_name"] == f"{folder}/000003.jpg"
    assert (record["video_id"], record["frame_id"]) == ("002", 3)
    assert (record["height"], record["width"]) == (64, 80)
    assert record["image_id"] == "images/train/002/img1/000003.jpg"
    assert record["frame_file_names"] == [f"{folder}/{n:06d}.jpg" for n in (3, 2, 1, 1, 1)]
    content = json.loads((root / RSCARDATA_SPLITS["train"].new).read_text())
    wanted = [a for a in content["annotations"] if a["image_id"] == record["json_id"]]
    assert len(wanted) == len(record["annotations"]) > 0
    for a, b in zip(record["annotations"], wanted):
        assert (a["bbox"], a["track_id"], a["category_id"]) == (b["bbox"], b["track_id"], 0)
        assert a["bbox_mode"] == BoxMode.XYWH_ABS
    assert len(load_rscardata(root, "train", "new", num_frames=3)[9]["frame_file_names"]) == 3


def test_old_labels_are_the_same_as_coco_and_as_voc(root: Path) -> None:
    old, new = (load_rscardata(root, "test", labels) for labels in ("old", "new"))
    voc = load_rscardata(root, "test", "old_voc")
    assert boxes(old) == boxes(voc)
    assert sum(map(len, boxes(old).values())) < sum(map(len, boxes(new).values()))
    assert [r["frame_file_names"] for r in old] == [r["frame_file_names"] for r in voc]
    assert not any("track_id" in a for r in old for a in r["annotations"])


def test_new_voc_labels_lie_in_a_folder_of_their_own(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="labeleddata20230227"):
        load_rscardata(root, "test", "new_voc")
    for video in ("001", "002"):
        folder = root / "labeleddata20230227" / video / "img1"
        folder.mkdir(parents=True)
        text = "<annotation><object><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>8</xmax>"
        text += "<ymax>10</ymax></bndbox></object></annotation>"
        (folder / "000002.xml").write_text(text)
        (folder / "000009.xml").write_text(text)
    report = LabelReport()
    records = load_rscardata(root, "test", "new_voc", report=report)
    assert [r["frame_id"] for r in records] == [2, 2]
    assert records[1]["annotations"][0]["bbox"] == [3, 4, 5, 6]
    assert records[1]["frame_file_names"][1].endswith("002/img1/000001.jpg")
    assert report.count("image_without_label") == 12 and report.count("label_without_image") == 2


def test_broken_voc_files_are_reported_and_never_read_as_empty(root: Path) -> None:
    folder = root / "images" / "test1024" / "001" / "xml_det"
    (folder / "000002.xml").write_text("<annotation><object>")
    (folder / "000003.xml").write_text(
        "<annotation><object><bndbox><xmin>3</xmin></bndbox></object>"
        "<object><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>3</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    report = LabelReport()
    records = load_rscardata(root, "test", "old_voc", report=report)
    frames = [r["frame_id"] for r in records if r["video_id"] == "001"]
    assert frames == [1, 3, 4, 5, 6, 7]
    assert records[1]["annotations"] == []
    assert [report.count(k) for k in ("xml", "voc_object", "box_without_area")] == [1, 1, 1]
    assert report.problems[0].line == 1


def test_xml_of_other_formats_and_huge_boxes_are_told(root: Path) -> None:
    folder = root / "images" / "test1024" / "001" / "xml_det"
    (folder / "000002.xml").write_text(
        "<annotation><object><robndbox><cx>5</cx></robndbox></object></annotation>"
    )
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1e12</xmax><ymax>9</ymax></bndbox>"
    (folder / "000003.xml").write_text(
        f"<?xml version='1.0' encoding='gb2312'?>\n<annotation>\n<object><name>汽车</name>{box}"
        "</object></annotation>",
        encoding="gb2312",
    )
    report = LabelReport()
    records = load_rscardata(root, "test", "old_voc", report=report)
    frames = [r["frame_id"] for r in records if r["video_id"] == "001"]
    assert frames == [1, 3, 4, 5, 6, 7]
    found = [(p.kind, p.line) for p in report.problems]
    assert found == [("foreign_format", 1), ("non_finite", 3)]
    assert "it looks like roLabelImg XML, which rsd2 does not" in report.problems[0].message


def test_zero_size_boxes_are_reported_and_left_out(root: Path) -> None:
    path = root / RSCARDATA_SPLITS["train"].old
    content = json.loads(path.read_text())
    before = len(content["annotations"])
    content["annotations"][0]["bbox"][2] = 0
    path.write_text(json.dumps(content))
    report = LabelReport()
    records = load_rscardata(root, "train", report=report)
    assert sum(len(r["annotations"]) for r in records) == before - 1
    assert report.count("box_without_area") == 1


def test_missing_frames_are_an_error_or_reported(root: Path) -> None:
    (root / "images" / "train" / "001" / "img1" / "000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 14 images"):
        load_rscardata(root, "train")
    report = LabelReport()
    records = load_rscardata(root, "train", missing_image="drop", report=report)
    assert len(records) == 13
    window = [Path(name).stem for name in records[2]["frame_file_names"]]
    assert window == ["000004", "000004", "000002", "000001", "000001"]
    assert report.count("missing_image") == 1 and report.count("missing_frame", "kept") == 1


def test_frames_that_are_not_listed_still_stand_in_windows(root: Path) -> None:
    """A file may list frames with objects only; the frames between them exist all the same."""
    path = root / RSCARDATA_SPLITS["train"].old
    content = json.loads(path.read_text())
    content["images"] = content["images"][4:5]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 5]
    path.write_text(json.dumps(content))
    (record,) = load_rscardata(root, "train")
    assert [Path(n).stem[-1] for n in record["frame_file_names"]] == ["5", "4", "3", "2", "1"]


def test_frames_without_a_number_are_reported(root: Path) -> None:
    path = root / RSCARDATA_SPLITS["train"].old
    folder = root / "images" / "train" / "001" / "img1"
    (folder / "000002.jpg").rename(folder / "second.jpg")
    path.write_text(path.read_text().replace("001/img1/000002.jpg", "001/img1/second.jpg"))
    report = LabelReport()
    assert len(load_rscardata(root, "train", report=report)) == 13
    assert report.count("frame_number") == 2  # in the list and in the folder


def test_frames_that_no_folder_assigns_to_a_video_never_mix(root: Path) -> None:
    """Without ``img1`` two videos would get one name, and windows would cross between them."""
    path = root / RSCARDATA_SPLITS["train"].old
    content = json.loads(path.read_text())
    video = root / "images" / "train" / "001"
    for frame in (video / "img1").iterdir():
        frame.rename(video / frame.name)
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("001/img1/", "001/")
    path.write_text(json.dumps(content))
    report = LabelReport()
    records = load_rscardata(root, "train", report=report)
    assert {r["video_id"] for r in records} == {"002"} and len(records) == 7
    assert report.count("frame_folder", "dropped") == 7
    content["images"] = content["images"][:7]
    content["annotations"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="frame_folder"):
        load_rscardata(root, "train")


def test_no_video_is_an_error_and_no_empty_data_set(tmp_path: Path) -> None:
    (tmp_path / "images" / "test1024").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no video in .*test1024"):
        load_rscardata(tmp_path, "test", "old_voc")


def test_registered_set_and_wrong_arguments(root: Path) -> None:
    name = "rscardata_of_this_test"
    register_rscardata(name, root, "test", "new", {"origin": "drawn"}, num_frames=3)
    try:
        assert len(DatasetCatalog.get(name)[0]["frame_file_names"]) == 3
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["car"] and metadata.origin == "drawn"
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    for split, labels in (("val", "old"), ("train", "newest")):
        with pytest.raises(ValueError, match="split must be one of train, test and labels"):
            load_rscardata(root, split, labels)
    with pytest.raises(FileNotFoundError, match="xml_det"):
        load_rscardata(root, "train", "old_voc")
