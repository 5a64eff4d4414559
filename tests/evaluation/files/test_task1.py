import zipfile

import numpy as np
import pytest

from rsd2.evaluation import Detections, GroundTruth, read_task1, score_detections, score_task1
from rsd2.evaluation.files.task1 import write_task1_zip

CLASSES = ("plane", "small-vehicle", "ship")


@pytest.fixture
def detections():
    rng = np.random.default_rng(0)
    return Detections(
        image_index=rng.integers(0, 3, 40),
        class_index=rng.integers(0, 2, 40),
        scores=rng.random(40).astype(np.float32).astype(np.float64),
        boxes=rng.uniform(5, 100, (40, 5)),
    )


def test_round_trip(tmp_path, slow_judge, detections):
    path = tmp_path / "Task1.zip"
    write_task1_zip(path, ("P1", "P2", "P3"), CLASSES, detections)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"Task1_{name}.txt" for name in CLASSES]
        assert archive.read("Task1_ship.txt") == b""
        first = archive.read("Task1_plane.txt").decode().splitlines()[0].split()
    assert len(first) == 10 and first[0] in ("P1", "P2", "P3")
    again = read_task1(path, ("P1", "P2", "P3"), CLASSES)
    order = np.argsort(detections.class_index, kind="stable")
    np.testing.assert_array_equal(again.image_index, detections.image_index[order])
    np.testing.assert_array_equal(again.class_index, detections.class_index[order])
    # Nine digits: every float32 score comes back exactly.
    np.testing.assert_array_equal(again.scores.astype(np.float32), detections.scores[order])
    corners = [slow_judge.corners_of(box) for box in detections.boxes[order]]
    np.testing.assert_allclose(again.polygons, corners, atol=6e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["Task1.zip"]


def test_folder_and_zip_score_alike(tmp_path, detections):
    square = [10.0, 10.0, 60.0, 10.0, 60.0, 60.0, 10.0, 60.0]
    dicts = [
        {"image_id": name, "annotations": [{"category_id": k, "poly": square} for k in (0, 1)]}
        for name in ("P1", "P2", "P3")
    ]
    truth = GroundTruth.from_dicts(dicts, CLASSES)
    write_task1_zip(tmp_path / "Task1.zip", truth.image_ids, CLASSES, detections)
    with zipfile.ZipFile(tmp_path / "Task1.zip") as archive:
        archive.extractall(tmp_path / "folder")
    direct = score_detections(truth, detections, iou_thresholds=[0.3]).ap
    for path in (tmp_path / "Task1.zip", tmp_path / "folder"):
        scores = score_task1(path, dicts, CLASSES, iou_thresholds=[0.3])
        np.testing.assert_allclose(scores.ap, direct, atol=1e-9, equal_nan=True)
    assert direct[0, 0] > 0


@pytest.mark.parametrize(
    "line, message",
    [
        ("P1 0.5 1 2 3", "line 2: 5 fields"),
        ("P1 0.5 1 2 3 4 5 6 7 x", "line 2: could not convert"),
        ("P1 nan 1 2 3 4 5 6 7 8", "line 2: a number is not finite"),
        ("P9 0.5 1 2 3 4 5 6 7 8", "line 2: image 'P9' is not in the ground truth"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    for name in CLASSES:
        (tmp_path / f"Task1_{name}.txt").write_text("")
    (tmp_path / "Task1_ship.txt").write_text("P1 0.5 1 2 3 4 5 6 7 8\n" + line + "\n")
    with pytest.raises(ValueError, match=f"Task1_ship.txt, {message}"):
        read_task1(tmp_path, ("P1",), CLASSES)


def test_missing_class_file_is_an_error(tmp_path, detections):
    with pytest.raises(FileNotFoundError, match="Task1_plane.txt"):
        read_task1(tmp_path, ("P1",), CLASSES)
    write_task1_zip(tmp_path / "a.zip", ("P1", "P2", "P3"), CLASSES[:2], detections)
    with pytest.raises(FileNotFoundError, match="Task1_ship.txt"):
        read_task1(tmp_path / "a.zip", ("P1", "P2", "P3"), CLASSES)


def test_broken_zips_are_named(tmp_path, detections):
    path = tmp_path / "a.zip"
    write_task1_zip(path, ("P1", "P2", "P3"), CLASSES, detections)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"Task1_") + 40] ^= 0xFF
    for content in (b"<html>", whole[: len(whole) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.zip is damaged or no zip"):
            read_task1(path, ("P1", "P2", "P3"), CLASSES)


def test_names_that_the_format_cannot_hold(tmp_path, detections):
    with pytest.raises(ValueError, match="white space"):
        write_task1_zip(tmp_path / "a.zip", ("P 1", "P2", "P3"), CLASSES, detections)
    with pytest.raises(ValueError, match="path separator"):
        write_task1_zip(tmp_path / "a.zip", ("P1", "P2", "P3"), ("a/b", "c"), detections)
    assert list(tmp_path.iterdir()) == []
