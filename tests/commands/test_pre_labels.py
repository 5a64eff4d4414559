"""Detections as pre-labels: where they are, with their scores, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.commands.pre_labels import pre_labels_path, write_pre_labels
from rsd2.data.formats.registry import LABEL_FORMATS, detect_format
from rsd2.inference.prediction_files import PredictionWriter
from rsd2.inference.sliding_window import ImageDetections

# 40 x 20 about (60, 50), 30 degrees clockwise on screen: minus 30 in Detectron2's sense.
CORNERS = [[47.679492, 31.339746], [82.320508, 51.339746], [72.320508, 68.660254],
           [37.679492, 48.660254]]  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Output folder of a run on two images, of which one shows nothing."""
    image = np.zeros((100, 200, 3), np.uint8)
    box = np.array([[60.0, 50, 40, 20, -30]])
    some = ImageDetections(box, np.array([0.75]), np.array([1]), 1, 0, 0, 0)
    none = ImageDetections(box[:0], np.zeros(0), np.zeros(0, np.int64), 1, 0, 0, 0)
    with PredictionWriter(tmp_path / "out", ["storage tank", "渔船"]) as out:
        for name, found in (("far/a.png", some), ("b.png", none)):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
            out.add(path, path.stem, image, found, 0.1)
        out.finish({}, [])
    return out.folder


@pytest.mark.parametrize("name", list(LABEL_FORMATS))
def test_detections_are_where_they_were_found(name: str, finished: Path, tmp_path: Path) -> None:
    one, path = LABEL_FORMATS[name], pre_labels_path(finished, name)
    text = write_pre_labels(finished, name)
    assert str(path) in text
    assert ("NOT CARRIED OVER: 1 scores" in text) == ("score" not in one.holds)
    assert "quadrilateral" not in text
    assert detect_format(path) is one

    empty, image = one.read(path, tmp_path / "images")
    assert (empty.file_name, empty.objects) == ("b.png", [])
    (found,) = image.objects
    assert image.file_name == "far/a.png" and found.name == "渔船"
    np.testing.assert_allclose(found.polygon, CORNERS, atol=1e-4)
    assert found.score == (0.75 if "score" in one.holds else None)
    with pytest.raises(ValueError, match="may hold corrected labels"):
        pre_labels_path(finished, name)


def test_an_empty_run_is_written(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path / "out", ["ship"]) as out:
        out.finish({}, [])
    write_pre_labels(out.folder, "cvat")
    assert LABEL_FORMATS["cvat"].read(out.folder / "pre_labels.xml") == []


def test_label_studio_gets_predictions_and_no_annotations(finished: Path) -> None:
    write_pre_labels(finished, "label-studio")
    tasks = json.loads((finished / "pre_labels.json").read_text("utf-8"))
    assert [bool(task.get("predictions")) for task in tasks] == [True, False]
    assert tasks[0]["annotations"] == [] and tasks[0]["predictions"][0]["score"] == 0.75
