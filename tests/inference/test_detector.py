"""``load_detector``: the detections of ``rsd2 predict``, for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from rsd2 import load_detector
from rsd2.commands import predict
from rsd2.config import save_config
from rsd2.inference.detector import Found
from rsd2.io.image_io import read_image
from rsd2.testing import shrink, write_tiny_dota

NAMES = ["plane", "storage tank"]
SMALL = {"window": 64, "overlap": 20, "score_threshold": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Folder with a tiny model's config and checkpoint, as a training leaves them."""
    folder = tmp_path_factory.mktemp("trained")
    config = repository / "configs" / "rotated_deformable_detr_small_synthetic.py"
    cfg = shrink(LazyConfig.load(str(config)))
    cfg.model.num_classes = len(NAMES)
    cfg.dataloader.test.dataset.names = "nobody_registered_this"
    save_config(cfg, folder / "config.yaml")
    torch.manual_seed(0)
    torch.save({"model": instantiate(cfg.model).state_dict()}, folder / "model.pth")
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that needs six windows."""
    _, folder = write_tiny_dota(tmp_path_factory.mktemp("large"), 1, (90, 150), seed=1)
    return folder / "P0000.png"


def test_same_as_the_command(trained: Path, image: Path, tmp_path: Path) -> None:
    flags = ["--config-file", str(trained / "config.yaml"), "--window", "64", "--overlap", "20"]
    flags += ["--weights", str(trained / "model.pth"), "--score-threshold", "0"]
    flags += ["--device", "cpu", "--output", str(tmp_path), "--input", str(image)]
    assert predict.main([*flags, "--classes", *NAMES]) == 0
    content = json.loads((tmp_path / "detections.json").read_text())
    expected = content["images"][0]["detections"]

    detector = load_detector(trained / "model.pth", class_names=NAMES, **SMALL)
    found = detector(image)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, [x["box"] for x in expected], atol=6e-4)
    np.testing.assert_allclose(found.scores, [x["score"] for x in expected], atol=6e-7)
    assert found.classes.tolist() == [x["class_index"] for x in expected]
    assert found.labels == [x["class"] for x in expected] and found.class_names == NAMES

    found.to_dota(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == (tmp_path / "P0000.txt").read_text()
    found.draw(tmp_path / "mine.png")
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("mine.png", "P0000.png")]
    assert np.array_equal(*pictures)

    again = detector(read_image(image))
    assert np.array_equal(again.boxes, found.boxes) and "150 x 90 pixels" in repr(again)


def test_missing_files_and_wrong_parameters(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "model.pth"
    with pytest.raises(FileNotFoundError, match="no checkpoint .*; pass the path"):
        load_detector(alone)
    shutil.copy(trained / "model.pth", alone)
    with pytest.raises(FileNotFoundError, match="config.yaml beside the weights .*config=PATH"):
        load_detector(alone)
    with pytest.raises(FileNotFoundError, match="no config none.py to build"):
        load_detector(alone, "none.py")
    with pytest.raises(ValueError, match="class_names has 1 names, the model 2 classes"):
        load_detector(trained / "model.pth", class_names=["plane"])
    with pytest.raises(ValueError, match="overlap must be in"):
        load_detector(alone, window=100)

    detector = load_detector(alone, trained / "config.yaml", **SMALL)
    with pytest.raises(FileNotFoundError, match="missing.png"):
        detector(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="uint8"):
        detector(np.zeros((9, 9, 3)))


def test_drawing_and_names_that_cannot_be() -> None:
    one = np.array([[5.0, 5, 4, 2, 0]])
    found = Found(np.zeros((9, 9, 3), dtype=np.uint8), one, np.ones(1), np.array([3]), [])
    assert found.labels == ["3"]
    with pytest.raises(ValueError, match="end in .png or .jpg"):
        found.draw("drawing.docx")
    with pytest.raises(ValueError, match="class 3, but there are 1 class names"):
        Found(found.image, one, found.scores, found.classes, ["plane"]).labels  # noqa: B018
