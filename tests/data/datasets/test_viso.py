"""VISO: videos of both dialects, and frames numbered through whose videos must not mix."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.data.datasets import VISO_CAR_FIRST_FRAMES, load_viso_coco, load_viso_mot
from rsd2.data.formats.label_report import LabelReport


def write_frame(path: Path, size: tuple[int, int] = (24, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), 90, dtype=np.uint8))


def write_video(root: Path, kind: str, video: str, rows: str, numbers: range) -> None:
    base = root / "mot" / kind / video
    for number in numbers:
        write_frame(base / "img" / f"{number:06d}.jpg")
    (base / "gt").mkdir()
    (base / "gt" / "gt.txt").write_text(rows)


def write_coco(root: Path, split: str, numbers: list[int], kind: str = "car") -> None:
    base = root / "coco" / kind
    for number in numbers:
        write_frame(base / f"{split}2017" / f"{number:06d}.jpg")
    images = [{"id": n, "file_name": f"{n:06d}.jpg", "height": 24, "width": 32} for n in numbers]
    boxes = [{"id": 1, "image_id": numbers[0], "category_id": 1, "bbox": [1, 2, 5, 6]}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": kind}]}
    (base / "Annotations").mkdir(parents=True, exist_ok=True)
    (base / "Annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def test_rows_of_both_dialects(tmp_path: Path) -> None:
    write_video(tmp_path, "car", "001", "2,9,1,2,5,6,1,1,-1,-1\n0,0,0,0,0,0,0,0,0,0\n", range(1, 4))
    write_video(tmp_path, "plane", "040", "1 4 10 8 20 18 1 1 -1 -1\n7 4 1 1 2 2\n", range(1, 3))
    report = LabelReport()
    cars = load_viso_mot(tmp_path, "car", report=report)
    assert [r["image_id"] for r in cars] == ["001/000001", "001/000002", "001/000003"]
    assert [len(r["annotations"]) for r in cars] == [0, 1, 0]
    (car,) = cars[1]["annotations"]
    assert (car["bbox"], car["track_id"], car["category_id"]) == ([1, 2, 5, 6], 9, 0)
    assert (cars[0]["height"], cars[0]["width"], cars[0]["video_id"]) == (24, 32, "001")
    assert [Path(n).stem[-1] for n in cars[2]["frame_file_names"]] == ["3", "2", "1", "1", "1"]
    assert report.count("mot_row") == 1
    report = LabelReport()
    (first, _) = load_viso_mot(tmp_path, "plane", report=report)
    assert first["annotations"][0]["bbox"] == [10, 8, 10, 10]
    assert report.count("label_without_image") == 1 and report.problems[0].line == 2


def test_a_video_with_unreadable_rows_is_left_out_and_named(tmp_path: Path) -> None:
    for video in ("001", "002"):
        write_video(tmp_path, "car", video, "1,9,1,2,5,6\n", range(1, 2))
    (tmp_path / "mot" / "car" / "001" / "gt" / "gt.txt").write_bytes(b"1,9,1,2,5,6\n\xff\xff\n")
    report = LabelReport()
    records = load_viso_mot(tmp_path, "car", report=report)
    assert [r["image_id"] for r in records] == ["002/000001"]
    (problem,) = report.problems
    assert (problem.kind, problem.line) == ("unreadable_label", 2)
    assert problem.file.endswith("001/gt/gt.txt")
    with pytest.raises(ValueError, match=r"gt\.txt:2: no text in UTF-8"):
        load_viso_mot(tmp_path, "car", videos=["001"])


def test_chosen_videos_and_wrong_names(tmp_path: Path) -> None:
    for video in ("001", "002"):
        write_video(tmp_path, "car", video, "", range(1, 2))
    assert [r["video_id"] for r in load_viso_mot(tmp_path, "car", videos=["002"])] == ["002"]
    assert len(load_viso_mot(tmp_path, "car")) == 2
    with pytest.raises(ValueError, match=r"no videos \['003'\]; it has \['001', '002'\]"):
        load_viso_mot(tmp_path, "car", videos=["003"])
    with pytest.raises(ValueError, match="class_name must be one of"):
        load_viso_mot(tmp_path, "bus")
    with pytest.raises(FileNotFoundError, match="mot/ship"):
        load_viso_mot(tmp_path, "ship")
    (tmp_path / "mot" / "ship").mkdir()
    with pytest.raises(FileNotFoundError, match="ship holds no <video>/img"):
        load_viso_mot(tmp_path, "ship")


def test_frames_numbered_through_are_cut_into_videos(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", [1, 2, 3, 259, 260, 261, 262, 263])
    records = load_viso_coco(tmp_path, "car", "train")
    placed = [(r["video_id"], r["frame_id"]) for r in records]
    assert placed[2:6] == [("001", 3), ("001", 259), ("001", 260), ("002", 1)]
    window = [int(Path(n).stem) for n in records[6]["frame_file_names"]]
    assert window == [262, 261, 261, 261, 261]  # not 260, which is another video
    assert records[0]["annotations"][0]["bbox"] == [1, 2, 5, 6]


def test_frames_without_a_number_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_coco(tmp_path, "train", [1, 2])
    labels = tmp_path / "coco/car/Annotations/instances_train2017.json"
    labels.write_text(labels.read_text().replace("000002.jpg", "second.jpg"))
    folder = tmp_path / "coco/car/train2017"
    (folder / "000002.jpg").rename(folder / "second.jpg")
    report = LabelReport()
    with caplog.at_level("WARNING"):
        assert len(load_viso_coco(tmp_path, "car", "train", report=report)) == 1
    assert report.count("frame_number") == 1 and "second.jpg" in caplog.text


def test_unknown_borders_are_asked_for(tmp_path: Path) -> None:
    write_coco(tmp_path, "val", [9418, 9419, 9420])
    with pytest.raises(ValueError, match=r"count from 9418. Pass first_frames=\[9418, ...\]"):
        load_viso_coco(tmp_path, "car", "val")
    records = load_viso_coco(tmp_path, "car", "val", first_frames=[9418, 9420])
    assert [(r["video_id"], r["frame_id"]) for r in records] == [
        ("001", 1),
        ("001", 2),
        ("002", 1),
    ]
    with pytest.raises(ValueError, match="first frame of the first video, 9418"):
        load_viso_coco(tmp_path, "car", "val", first_frames=[9419])
    write_coco(tmp_path, "train", [1, 2], kind="ship")
    with pytest.raises(ValueError, match="not known where the videos of coco/ship"):
        load_viso_coco(tmp_path, "ship", "train")
    with pytest.raises(ValueError, match="split one of train, val, test"):
        load_viso_coco(tmp_path, "car", "trainval")


def test_known_borders_are_increasing() -> None:
    lengths = np.diff(VISO_CAR_FIRST_FRAMES["train"])
    assert lengths.tolist()[:4] == [260, 326, 325, 326] and lengths.min() == 260
    assert np.diff(VISO_CAR_FIRST_FRAMES["val"]).tolist() == [325, 325, 730, 480, 200, 299]
