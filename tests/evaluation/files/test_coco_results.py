"""Result files of other programs: what is wrong is named by file and entry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsd2.evaluation.files.coco_results import ResultFileError, read_coco_results, to_coco_results
from rsd2.evaluation.matching.boxes import BoxDetections

INPUTS = {7: ("a.png", ()), 8: ("b.png", (100, 50, 64, 64))}
CLASSES = {1: 0, 2: 1}


def entry(**more: object) -> dict:
    return {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, **more}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "found.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_of_windows_are_shifted(tmp_path: Path) -> None:
    texts = {"image_id": "7", "category_id": "1", "score": "0.25", "bbox": ["1", 2, 3, 4]}
    path = write(tmp_path, [entry(), entry(image_id=8, category_id=2), entry(**texts)])
    records, problems = read_coco_results(path, INPUTS, CLASSES)
    assert not problems
    first, second = records
    assert first.boxes.tolist() == [[1, 2, 4, 6], [1, 2, 4, 6]]
    assert first.scores.tolist() == [0.5, 0.25]
    assert second.boxes.tolist() == [[101, 52, 104, 56]]
    assert second.window == (100, 50, 64, 64)
    assert second.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"image_id": 99}, "unknown image"),
        ({"image_id": [7]}, "malformed entry"),
        ({"category_id": 3}, "unknown category"),
        ({"bbox": [1, 2, 3]}, "malformed entry"),
        ({"bbox": None}, "malformed entry"),
        ({"score": "high"}, "malformed entry"),
        ({"score": float("nan")}, "number not finite"),
        ({"bbox": [1, 2, float("inf"), 4]}, "number not finite"),
    ],
)
def test_wrong_entries(tmp_path: Path, wrong: dict, kind: str) -> None:
    path = write(tmp_path, [entry(), entry(**wrong)])
    with pytest.raises(ResultFileError, match=rf"found\.json: 1 x {kind}.*entry 1"):
        read_coco_results(path, INPUTS, CLASSES)
    records, problems = read_coco_results(path, INPUTS, CLASSES, on_problem="drop")
    assert problems == {kind: 1}
    assert len(records[0].scores) == 1


def test_entries_that_are_no_dicts(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="malformed entry"):
        read_coco_results(write(tmp_path, [3]), INPUTS, CLASSES)


@pytest.mark.parametrize(
    ("content", "words"), [('[{"image', "not valid JSON"), ({}, "holds a dict")]
)
def test_broken_files(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(ResultFileError, match=words):
        read_coco_results(write(tmp_path, content), INPUTS, CLASSES)


def test_missing_files_and_unknown_policies(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_coco_results(tmp_path / "none.json", INPUTS, CLASSES)
    with pytest.raises(ValueError, match="on_problem"):
        read_coco_results(tmp_path / "none.json", INPUTS, CLASSES, on_problem="skip")


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    found = BoxDetections(
        np.array([0, 0, 1]), np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]),
        np.array([[1, 2, 4, 7], [0, 0, 5, 5], [3.5, 1, 9, 2.25]]),
    )  # fmt: skip
    path = write(tmp_path, to_coco_results(found, [7, 9], [1, 2]))
    records, _ = read_coco_results(path, {7: ("a", ()), 9: ("b", ())}, CLASSES)
    assert [r.image_id for r in records] == ["a", "b"]
    assert records[0].classes.tolist() == [1, 0]
    np.testing.assert_array_equal(records[1].boxes[0], found.boxes[2])
