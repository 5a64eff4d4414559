"""``rsd2 score``: every kind of result file, and what is said about wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from rsd2.commands import score
from rsd2.io.image_io import write_image
from rsd2.io.mat_tables import write_mat_table
from rsd2.testing import write_tiny_dota

VIDEOS = "score_command_videos"


def table(text: str) -> dict[str, float]:
    """Read the printed table."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[1].strip(): float(row[2]) for row in rows[2:]}


@pytest.fixture
def dota(tmp_path: Path) -> list[str]:
    """Labels of two images, and a submission that repeats them; returns the arguments."""
    labels, images = write_tiny_dota(tmp_path, 3, seed=2)
    lines: dict[str, list[str]] = {"plane": [], "ship": []}
    for path in sorted(labels.glob("*.txt")):
        for line in path.read_text().splitlines()[2:]:
            *corners, name, _ = line.split()
            lines[name].append(f"{path.stem} 0.9 {' '.join(corners)}")
    (tmp_path / "found").mkdir()
    for name, rows in lines.items():
        (tmp_path / "found" / f"Task1_{name}.txt").write_text("\n".join(rows) + "\n")

    words = ["--protocol", "dota", "--annotations", labels, "--images", images]
    return [*map(str, words), "--classes", "plane", "ship", "--results", str(tmp_path / "found")]


@pytest.fixture
def coco(tmp_path: Path) -> list[str]:
    """A COCO file with gaps in its numbers, and results that repeat it; returns the arguments."""
    write_image(tmp_path / "a.png", np.zeros((60, 80, 3), dtype=np.uint8))
    boxes = [(7, [5, 5, 20, 10]), (90, [40, 20, 12, 30])]
    labels: dict[str, Any] = {
        "images": [{"id": 31, "file_name": "a.png", "height": 60, "width": 80}],
        "categories": [{"id": 90, "name": "boat"}, {"id": 7, "name": "tree"}],
        "annotations": [
            {"id": k + 1, "image_id": 31, "category_id": label, "bbox": box, "iscrowd": 0,
             "area": box[2] * box[3]} for k, (label, box) in enumerate(boxes)
        ],
    }  # fmt: skip
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    found = [
        {"image_id": 31, "category_id": label, "bbox": box, "score": 0.5} for label, box in boxes
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    paths = str(tmp_path / "labels.json"), str(tmp_path / "found.json")
    return ["--annotations", paths[0], "--results", paths[1], "--protocol"]


@pytest.fixture
def videos(tmp_path: Path, register: Callable[..., str]) -> Path:
    """Two videos of two frames with a car each, and a folder of results that finds half of them."""
    records = []
    for video in ("002", "005"):
        for frame in (1, 2):
            name = f"images/test1024/{video}/img1/{frame:06d}.jpg"
            car = {"bbox": [10, 10, 5, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
            records.append(
                {"file_name": name, "image_id": name, "height": 50, "width": 80,
                 "video_id": video, "frame_id": frame, "annotations": [{**car, "iscrowd": 0}]}
            )  # fmt: skip
        (tmp_path / "mat" / video).mkdir(parents=True)
        row = [[11.0, 10, 16, 15, 0.9]] if video == "002" else np.zeros((0, 5))
        for frame in (1, 2):
            path = tmp_path / "mat" / video / f"{frame:06d}.mat"
            write_mat_table(path, "A", np.array(row))
    register(VIDEOS, records, ["car"])
    return tmp_path / "mat"


def test_a_submission_is_scored_with_the_options_of_the_protocol(dota, tmp_path, capsys):
    assert score.main([*dota, "--output", str(tmp_path / "out"), "ap_method=area"]) == 0
    assert table(capsys.readouterr().out)["AP50"] == 100
    record = json.loads((tmp_path / "out" / "metrics_dota.json").read_text())
    assert record["protocol"]["ap_method"].startswith("area")
    # The third image shows nothing, and nothing was found there.
    assert record["counts"]["images_without_prediction"] == 1


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("Task1_ship.txt", "P9999 0.5 1 2 3 4 5 6 7 8", "Task1_ship.txt, line 1: image 'P9999'"),
        ("Task1_ship.txt", "P0000 0.5 1 2 3", "Task1_ship.txt, line 1: 5 fields instead"),
        ("Task1_boat.txt", "", "Task1_boat.txt is of no class of the ground truth (plane, ship)"),
    ],
)
def test_what_is_wrong_in_a_submission_is_named(dota, tmp_path, capsys, name, line, message):
    (tmp_path / "found" / name).write_text(line + "\n")
    assert score.main(dota) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("protocol", "key"), [("coco", "AP50"), ("tiny", "AP50_all"), ("aitod", "AP")]
)
def test_a_json_list_uses_the_numbers_of_the_annotation_file(coco, protocol, key, capsys):
    assert score.main([*coco, protocol]) == 0
    assert table(capsys.readouterr().out)[key] == pytest.approx(100)


def test_wrong_entries_are_an_error_or_dropped(coco, tmp_path, capsys):
    found = json.loads((tmp_path / "found.json").read_text())
    found.append({**found[0], "category_id": 1})
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert score.main([*coco, "coco"]) == 2
    assert "1 x unknown category" in capsys.readouterr().err
    assert score.main([*coco, "coco", "--on-problem", "drop"]) == 0


def test_matlab_files_are_scored_and_written_alike(videos, tmp_path, capsys):
    words = ["--protocol", "video", "--dataset", VIDEOS, "mat_results=true"]
    words += ["--output", str(tmp_path / "out"), "--results"]
    assert score.main([*words, str(videos)]) == 0
    first = table(capsys.readouterr().out)
    assert first["F1-002"] == 100 and first["F1-005"] == 0 and first["recall"] == 50

    assert len(list((tmp_path / "out" / "mat").glob("*/*.mat"))) == len(DatasetCatalog.get(VIDEOS))
    for written in ("mat", "coco_instances_results.json"):
        assert score.main([*words, str(tmp_path / "out" / written)]) == 0
        assert table(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    ("place", "row", "message"),
    [
        ("002/000009.mat", [1, 1, 2, 2, 0.5], "are of no frame of the dataset"),
        ("002/000001.mat", [1, 1, 2, np.nan, 0.5], "row 1 of A has a number that is not finite"),
        ("002/000001.mat", [1, 1, 2], "no table A in it"),
    ],
)
def test_what_is_wrong_in_matlab_files_is_named(videos, capsys, place, row, message):
    write_mat_table(videos / place, "A", np.array([row], dtype=np.float64))
    words = ["--protocol", "video", "--dataset", VIDEOS, "--results", str(videos)]
    assert score.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and place in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "nothing"], "no data set 'nothing'"),
        (["--annotations", "labels"], "needs --classes"),
        (["--dataset", VIDEOS, "ap_metod=area"], "ap_metod"),
        (["--dataset", VIDEOS, "area"], "NAME=VALUE"),
        (["--dataset", VIDEOS, "--classes", "ship"], "belong to --annotations"),
        (["--dataset", VIDEOS, "--on-problem", "drop"], "is for JSON lists"),
    ],
)
def test_wrong_arguments(videos, words, message, capsys):
    assert score.main(["--protocol", "dota", "--results", "x.zip", *words]) == 2
    assert message in capsys.readouterr().err
