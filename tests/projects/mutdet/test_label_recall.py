"""Recall and precision of pseudo-boxes, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import PseudoLabels
from rsd2.projects.mutdet.label_recall import (
    format_recall,
    measure_recall,
    truth_of_dataset,
    truth_of_dota_folder,
)

LABELS = """imagesource:x
10 10 20 10 20 20 10 20 plane 0
30 10 50 10 50 20 30 20 ship 0
60 60 70 60 70 70 60 70 ship 0
0 0 5 0 5 5 0 5 ship 2
"""


def record(name: str, boxes: list[list[float]]) -> PseudoLabels:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return PseudoLabels(name, 100, 100, rows, np.ones(len(rows), np.float32))


def test_by_hand(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text(LABELS)
    (tmp_path / "empty.txt").write_text("")
    records = [
        record(
            "sub/a.png",
            [
                [15, 15, 10, 10, 0],  # the plane
                [15, 15, 10, 10, 0],  # again: as right as the first
                [40, 15, 20, 6, 0],  # IoU 0.6 with the first ship
                [72.5, 65, 10, 10, 0],  # IoU 0.143 with the second
                [2.5, 2.5, 5, 5, 0],  # a difficult object is no object
            ],
        ),
        record("empty.png", [[5, 5, 2, 2, 0]]),
        record("unlabelled.png", [[5, 5, 2, 2, 0]]),
    ]
    result = measure_recall(records, truth_of_dota_folder(tmp_path))
    assert result["images"] == 2 and result["images_without_labels"] == 1
    assert result["boxes_per_image"] == 3 and result["precision"] == 3 / 6
    assert list(result["recall"]) == ["all", "plane", "ship"]
    assert result["recall"]["all"] == {"objects": 3, "0.5": 2 / 3, "0.75": 1 / 3}
    assert result["recall"]["ship"] == {"objects": 2, "0.5": 0.5, "0.75": 0.0}
    text = format_recall(result)
    assert "| all | 3 | 0.667 | 0.333 |" in text and "precision 0.500" in text


def test_lines_of_the_truth_that_cannot_be_read_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("1 2 3 plane 0\n")
    measure_recall([record("a.png", [])], truth_of_dota_folder(tmp_path))
    assert f"{tmp_path / 'a.txt'}:1: 5 fields instead of 9 or more" in caplog.text


def test_of_dataset_dicts_and_of_nothing() -> None:
    annotations = [
        {"bbox": [15, 15, 10, 10, 0], "category_id": 1},
        {"bbox": [50, 50, 10, 10, 0], "category_id": 0, "difficult": 1},
    ]
    truth = truth_of_dataset([{"file_name": "any/a.png", "annotations": annotations}], ["x", "y"])
    result = measure_recall([record("a.png", [])], truth)
    assert result["recall"]["y"] == {"objects": 1, "0.5": 0.0, "0.75": 0.0}
    assert result["precision"] is None
    nothing = measure_recall([record("b.png", [])], truth)
    assert nothing["recall"] == {} and nothing["boxes_per_image"] is None
    assert "precision none" in format_recall(nothing)


def test_missing_label_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no label folder"):
        truth_of_dota_folder(tmp_path / "none")
