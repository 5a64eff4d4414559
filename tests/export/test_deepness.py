"""A file for Deepness, read as the plugin's documentation and its type of output say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.commands import export
from rsd2.export.deepness import deepness_props
from rsd2.export.description import ExportError
from rsd2.export.onnx_detector import OnnxDetector

CLASSES = ["plane", "storage tank"]


@pytest.fixture(scope="module")
def deepness_file(trained: Path) -> Path:
    pytest.importorskip("onnxruntime")
    path = trained / "deepness.onnx"
    flags = ["--config-file", trained / "config.yaml", "--weights", trained / "model.pth"]
    flags += ["--output", path, "--window", "64", "--resolution", "0.3"]
    assert export.main([*map(str, flags), "--for", "deepness", "--classes", *CLASSES]) == 0
    return path


def parse_oriented_boxes(
    output: np.ndarray, num_classes: int, confidence: float
) -> list[tuple[np.ndarray, float, int]]:
    """Read one image of (4 + K + 1, N) numbers: corners (4, 2) in pixels, score and class.

    From the description: columns are detections; rows are centre x, centre y, width, height, a
    score for each class, and the angle in radians by which the box is turned clockwise on screen.
    """
    found = []
    for column in output.T:
        scores = column[4 : 4 + num_classes]
        if scores.max() < confidence:
            continue
        (x, y, width, height), angle = column[:4], column[4 + num_classes]
        corners = cv2.boxPoints(
            ((float(x), float(y)), (float(width), float(height)), float(np.degrees(angle)))
        )
        found.append((corners, float(scores.max()), int(scores.argmax())))
    return found


def test_the_metadata_that_the_plugin_reads(deepness_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    props = {x.key: x.value for x in onnx.load(deepness_file).metadata_props}
    values = {key: json.loads(value) for key, value in props.items()}
    assert values["model_type"] == "Detector" and values["det_type"] == "YOLO_Ultralytics_obb"
    assert values["class_names"] == {"0": "plane", "1": "storage tank"}
    assert values["resolution"] == pytest.approx(30.0)  # centimetres
    assert values["tiles_size"] == values["tile_size"] == 64
    assert 0 < values["det_conf"] < 1 and values["det_iou_thresh"] == 0.3
    assert "clockwise" in values["rsd2_angle"] and "0-1" in values["rsd2_pixel_format"]


def test_what_the_plugin_finds_is_what_the_detector_finds(
    deepness_file: Path, exported: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(deepness_file), providers=["CPUExecutionProvider"])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert entry.shape == [1, 3, 64, 64] and entry.type == "tensor(float)"
    assert result.shape == [1, 4 + len(CLASSES) + 1, 10]

    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = np.float32(tile.transpose(2, 0, 1)[None] / 255.0)
    (output,) = session.run(None, {entry.name: pixels})
    parsed = parse_oriented_boxes(output[0], len(CLASSES), 0.0)

    detector = OnnxDetector(exported)
    detector.description.finishing["nms_threshold"] = None
    ((boxes, scores, classes),) = detector([tile])
    assert len(parsed) == 10
    for corners, score, label in parsed:
        same = (classes == label) & ((scores - score).abs() < 1e-4)
        assert same.any()
        # Corners as a set, because programs number them differently.
        distances = []
        for box in boxes[same].tolist():
            (x, y, w, h, angle) = box
            expected = cv2.boxPoints(((x, y), (w, h), -angle))
            gaps = np.linalg.norm(corners[:, None] - expected[None], axis=2)
            distances.append(max(gaps.min(axis=0).max(), gaps.min(axis=1).max()))
        assert min(distances) < 0.01


def test_the_angle_turns_clockwise_on_screen() -> None:
    output = np.array([[30.0], [30.0], [20.0], [4.0], [0.9], [np.radians(30)]])
    ((corners, score, label),) = parse_oriented_boxes(output, 1, 0.5)
    right = corners[corners[:, 0] > 30].mean(axis=0)
    assert right[1] > 30  # y points down: the right end has sunk
    assert (score, label) == (pytest.approx(0.9), 0)


def test_rsd2_does_not_run_a_file_for_another_program(deepness_file: Path) -> None:
    with pytest.raises(ExportError, match="exported for another program.*without --for"):
        OnnxDetector(deepness_file)


def test_windows_that_would_be_resized_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--config-file", trained / "config.yaml", "--weights", trained / "model.pth"]
    flags += ["--output", tmp_path / "a.onnx", "--window", "96", "--resolution", "0.3"]
    flags = [*map(str, flags), "--for", "deepness", "--classes", *CLASSES]
    assert export.main(flags) == 2
    assert "pass --window 64" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_an_unknown_size_of_a_pixel_is_named(exported: Path) -> None:
    description = replace(OnnxDetector(exported).description, resolution=None)
    with pytest.raises(ExportError, match="pass --resolution METRES"):
        deepness_props(description)
