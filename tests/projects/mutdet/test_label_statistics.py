"""The page about a run: numbers by hand, pictures that show the boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import EmbeddingHeader, PseudoLabels, ShardHeader
from rsd2.projects.mutdet.label_statistics import CHARTS, NUMBERS, SHEET, measure, write_statistics

HEADER = ShardHeader(
    "r" * 16,
    4,
    settings={"source": "test"},
    skipped={"bad.png": "truncated"},
    counts={"proposals": 9, "boxes": 3},
)


def record(name: str, boxes: list[list[float]]) -> PseudoLabels:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return PseudoLabels(name, 50, 100, rows, np.ones(len(rows), np.float32))


RECORDS = [
    record("a.png", [[20, 20, 20, 10, 0], [60, 30, 10, 10, 0]]),
    record("b.png", []),
    record("c.png", [[50, 25, 40, 10, 30]]),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for item in RECORDS:
        cv2.imwrite(str(tmp_path / item.file_name), np.zeros((50, 100, 3), np.uint8))
    return tmp_path


def test_numbers_by_hand() -> None:
    found = measure(RECORDS, HEADER)
    assert (found["images"], found["boxes"], found["images_without_boxes"]) == (4, 3, 1)
    assert found["unreadable"] == {"bad.png": "truncated"} and found["unreadable_images"] == 1
    median = found["quantiles"]["of"].index(0.5)
    for name, value in {
        "boxes per image": 1,
        "longer side, pixels": 20,
        "shorter side, pixels": 10,
        "aspect ratio": 2,
        "share of the image": 0.04,
    }.items():
        assert found["quantiles"][name][median] == value
    assert "clusters" not in found


def test_clusters_are_counted() -> None:
    header = replace(HEADER, embedding=EmbeddingHeader("e", "r", "x", 2, 5))
    records = [replace(r, clusters=np.full(len(r.boxes), 3)) for r in RECORDS]
    found = measure(records, header)
    assert found["clusters"] == 5 and found["empty_clusters"] == 4
    assert found["quantiles"]["boxes per cluster"][-1] == 3


def test_page_and_pictures(images: Path, tmp_path: Path) -> None:
    recall = {
        "images": 3,
        "images_without_labels": 0,
        "boxes_per_image": 1.0,
        "precision": None,
        "recall": {"all": {"objects": 2, "0.5": 0.5, "0.75": 0.0}},
    }
    page = write_statistics(tmp_path, RECORDS, HEADER, images, recall=recall).read_text()
    assert "- boxes: 3" in page and "`bad.png`: truncated" in page and "| all | 2 | 0.500" in page
    assert CHARTS in page and SHEET in page
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert numbers["recall"] == recall and numbers["boxes"] == 3
    sheet = cv2.imread(str(tmp_path / SHEET))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 10  # outlines on black images
    assert cv2.imread(str(tmp_path / CHARTS)).shape[2] == 3
    assert not list(tmp_path.glob(".*"))


def test_a_run_without_any_box_has_a_page(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    page = write_statistics(out, [RECORDS[1]], HEADER, images).read_text()
    assert "- boxes: 0" in page and "| aspect ratio | none" in page and SHEET not in page
    assert not (out / SHEET).exists() and (out / CHARTS).is_file()
