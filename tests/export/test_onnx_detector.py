"""An exported detector finds what the torch model finds, from pixels to files."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from rsd2 import load_detector
from rsd2.commands import predict
from rsd2.config import load_config
from rsd2.export.description import ExportError
from rsd2.export.onnx_detector import OnnxDetector
from rsd2.export.parity import Parity, add_differences
from rsd2.inference.image_detector import ImageDetector
from rsd2.io.files import file_digest
from rsd2.weights.checkpoint import load_weights

CLASSES = ["plane", "storage tank"]


@pytest.fixture(scope="module")
def torch_detector(trained: Path) -> ImageDetector:
    cfg = load_config(trained / "config.yaml")
    model = instantiate(cfg.model)
    load_weights(model, trained / "model.pth")
    augmentations = instantiate(cfg.dataloader.test.mapper.augmentations)
    return ImageDetector(model, augmentations, cfg.dataloader.test.mapper.image_format)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_same_detections_for_any_number_of_images(
    exported: Path, torch_detector: ImageDetector
) -> None:
    images = [random_image(64, 64, seed) for seed in range(3)] + [random_image(96, 96)]
    detector = OnnxDetector(exported)
    assert detector.description.batch is None
    assert detector([]) == []
    for count in (1, 2, 4):
        found, expected = detector(images[:count]), torch_detector(images[:count])
        assert len(found) == count
        for (boxes, scores, classes), reference in zip(found, expected):
            assert len(boxes) == len(reference[0]) > 0
            assert boxes.shape[1] == 5 and boxes.dtype == scores.dtype == torch.float32
            torch.testing.assert_close(boxes, reference[0], atol=0.01, rtol=0)
            torch.testing.assert_close(scores, reference[1], atol=1e-4, rtol=0)
            assert torch.equal(classes, reference[2])


def test_what_a_file_says_about_itself(exported: Path, trained: Path) -> None:
    described = OnnxDetector(exported).description
    assert described.classes == CLASSES and described.window == 64
    assert described.input_size == (64, 64) and described.resize == (64, 64)
    assert described.weights == "model.pth" and described.model == "RotatedDeformableDETR"
    assert described.weights_sha256 == file_digest(trained / "model.pth")
    assert described.finishing == {"score_threshold": 0.0, "nms_threshold": 0.3}
    assert described.resolution == 0.3
    assert "counter-clockwise" in described.angle and described.pixel_format.startswith("RGB")


def test_a_file_is_opset_18_without_own_operators_and_without_paths(
    exported: Path, repository: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 18)]
    assert str(repository).encode() not in exported.read_bytes()


def test_prediction_needs_the_file_alone(exported: Path, tmp_path: Path) -> None:
    image = random_image(90, 150)
    found = load_detector(exported, score_threshold=0.0)(image)
    assert found.class_names == CLASSES and len(found) > 0

    cv2.imwrite(str(tmp_path / "scene.png"), image[:, :, ::-1])
    flags = ["--weights", str(exported), "--input", str(tmp_path / "scene.png")]
    flags += ["--output", str(tmp_path / "out"), "--score-threshold", "0"]
    assert predict.main(flags) == 0
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    boxes = [x["box"] for x in content["images"][0]["detections"]]
    np.testing.assert_allclose(found.boxes, boxes, atol=6e-4)
    assert content["protocol"]["exported_from"] == "model.pth"
    assert (content["protocol"]["window"], content["protocol"]["overlap"]) == (64, 16)


def test_a_window_that_is_too_large_names_the_remedy(exported: Path) -> None:
    detector = OnnxDetector(exported)
    detector._resize = None
    with pytest.raises(ValueError, match="--window 64 --padding"):
        detector([random_image(64, 65)])


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_other_files_are_refused(content: bytes, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match="rsd2 export"):
        OnnxDetector(path)
    path.write_bytes(content)
    with pytest.raises(ExportError, match="model.onnx"):
        OnnxDetector(path)


def test_a_graph_without_description_is_refused(exported: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="no metadata rsd2_outputs.*rsd2 export"):
        OnnxDetector(tmp_path / "other.onnx")


def test_arguments_of_checkpoints_are_refused(
    exported: Path, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match="leave out --config-file"):
        load_detector(exported, trained / "config.yaml")
    with pytest.raises(ValueError, match="3 names, the file 2"):
        load_detector(exported, class_names=["a", "b", "c"])
    assert predict.main(["--weights", "model.pth", "--input", "x.png", "--output", "out"]) == 2
    assert "--config-file FILE is missing" in capsys.readouterr().err


def test_without_onnxruntime_one_sentence_says_what_to_install(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ExportError, match=r"pip install 'rsd2\[export\]'"):
        load_detector(exported)


def test_parity_counts_what_differs() -> None:
    boxes = torch.tensor([[20.0, 20, 10, 4, 30], [50, 50, 8, 6, 0], [80, 80, 6, 6, 0]])
    scores, classes = torch.tensor([0.9, 0.8, 0.01]), torch.tensor([0, 1, 0])

    same = Parity()
    turned = boxes[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, 90.0])
    add_differences(same, (boxes, scores, classes), (turned, scores, classes), 0.05)
    assert same.is_within() and same.box_difference < 1e-5 and same.num_detections == 2

    moved = Parity()
    other = boxes + torch.tensor([0.02, 0, 0, 0, 0])
    add_differences(moved, (boxes, scores, classes), (other, scores - 0.001, classes), 0.05)
    assert moved.box_difference == pytest.approx(0.02, abs=1e-5)
    assert moved.score_difference == pytest.approx(0.001, abs=1e-6)
    assert not moved.is_within() and moved.is_within(0.1, 0.01)

    relabelled = Parity()
    add_differences(relabelled, (boxes, scores, classes), (boxes, scores, 1 - classes), 0.05)
    assert (relabelled.missing, relabelled.extra) == (2, 2) and not relabelled.is_within()

    nothing = Parity()
    empty = boxes[:0], scores[:0], classes[:0]
    add_differences(nothing, (boxes, scores, classes), empty, 0.05)
    assert (nothing.missing, nothing.extra) == (2, 0)
