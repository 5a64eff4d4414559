"""Videos on disk: RsCarData's names and labels, and runs that continue where they were stopped."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.synthetic import (
    RSCARDATA_SPLITS,
    VideoConfig,
    plan_video,
    read_video_records,
    write_videos,
)

SMALL = VideoConfig(size=(64, 80), num_frames=6, density=12.0, old_label_drop=0.4)


def write(folder: Path, split: str = "test", num_videos: int = 2, **options) -> Path:
    config = options.pop("config", SMALL)
    return write_videos(folder, split, num_videos, config, progress=False, **options)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write(folder)
    return folder


def test_names_are_those_of_rscardata(written: Path) -> None:
    names = set(content(written))
    assert {
        "images/test1024/001/img1/000001.jpg",
        "images/test1024/002/img1/000006.jpg",
        "images/test1024/002/xml_det/000006.xml",
        "annotations/instances_test2017_1024.json",
        "annotations/test1024_mot.json",
        "records/test/002.json",
        "videos_test.json",
    } <= names
    assert len(names) == 2 * 6 * 2 + 2 + 2 + 1
    write(written / "more", "train", 1)
    assert not list((written / "more").rglob("*.xml"))
    assert (written / "more" / "annotations" / "instances_train2017.json").is_file()


def test_labels_are_those_of_the_plan(written: Path) -> None:
    coco = json.loads((written / RSCARDATA_SPLITS["test"].new).read_text())
    by_image = {image["id"]: image for image in coco["images"]}
    assert len(by_image) == 12
    for index in range(2):
        plan = plan_video(SMALL, 0, index)
        for frame, labels in enumerate(plan.labels, start=1):
            name = f"images/test1024/{index + 1:03d}/img1/{frame:06d}.jpg"
            (image,) = (i for i in coco["images"] if i["file_name"] == name)
            assert (image["video_id"], image["video_frame_id"]) == (index + 1, frame)
            assert (image["height"], image["width"]) == (64, 80)
            boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
            assert boxes == [list(label.box) for label in labels]
    videos_of_track: dict[int, set[int]] = {}
    for a in coco["annotations"]:
        video = by_image[a["image_id"]]["video_id"]
        videos_of_track.setdefault(a["track_id"], set()).add(video)
    assert videos_of_track and all(len(videos) == 1 for videos in videos_of_track.values())


def test_old_labels_lack_the_tracks_that_are_seen_worst(written: Path) -> None:
    names = RSCARDATA_SPLITS["test"]
    old, new = (json.loads((written / name).read_text()) for name in (names.old, names.new))
    assert set(old["images"][0]) == {"id", "file_name", "height", "width"}
    assert not any("track_id" in a for a in old["annotations"])
    kept = {(a["image_id"], *a["bbox"]) for a in old["annotations"]}
    full = {(a["image_id"], *a["bbox"]) for a in new["annotations"]}
    assert kept < full
    for index, record in enumerate(read_video_records(written, "test")):
        offset = 6 * index
        tracks = {row[0] for rows in record["frames"] for row in rows}
        shown = {
            row[0]
            for frame, rows in enumerate(record["frames"], start=1)
            for row in rows
            if (offset + frame, *row[1:]) in kept
        }
        assert len(tracks) - len(shown) == round(0.4 * len(tracks))
        seen = np.abs(record["contrast"]) * record["speed"]
        worst_kept = min((seen[track - 1] for track in shown), default=np.inf)
        assert all(seen[track - 1] <= worst_kept for track in tracks - shown)


def test_voc_files_hold_the_old_labels(written: Path) -> None:
    names = RSCARDATA_SPLITS["test"]
    old = json.loads((written / names.old).read_text())
    for image in old["images"]:
        path = Path(image["file_name"])
        file = written / path.parents[1] / names.voc / f"{path.stem}.xml"
        boxes = []
        for item in ElementTree.parse(file).getroot().iter("bndbox"):
            x0, y0, x1, y1 = (int(item.find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append([x0, y0, x1 - x0, y1 - y0])
        assert boxes == [a["bbox"] for a in old["annotations"] if a["image_id"] == image["id"]]


def test_frames_are_colour_pictures_of_the_size_asked_for(written: Path) -> None:
    image = cv2.imread(str(written / "images/test1024/001/img1/000003.jpg"))
    assert image.shape == (64, 80, 3) and 80 < image.mean() < 170


def test_other_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be"):
        write(tmp_path, "val")
