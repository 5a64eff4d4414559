"""A detector of every family finds as an ONNX file what it finds in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from rsd2.commands import export
from rsd2.config import load_config
from rsd2.export.onnx_detector import OnnxDetector
from rsd2.export.parity import compare
from rsd2.inference.image_detector import ImageDetector
from rsd2.weights.checkpoint import load_weights

from .conftest import CLASSES, write_trained

CONFIGS = [
    "BottomHeavy/configs/faster_rcnn_bh18_sspnet_synthetic_tiny.py",
    "BottomHeavy/configs/faster_rcnn_r18_fpn_synthetic_tiny.py",
    "ObjectJEPA/configs/faster_rcnn_vit_small_synthetic_finetune.py",
    "ObjectJEPA/configs/rotated_deformable_detr_vit_small_synthetic_finetune.py",
    "MutDet/configs/mutdet_small_synthetic_finetune.py",
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: Path(path).stem)
def test_same_detections_as_the_model(
    config: str, repository: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    write_trained(repository / "projects" / config, tmp_path)
    path = tmp_path / "model.onnx"
    flags = ["--config-file", tmp_path / "config.yaml", "--weights", tmp_path / "model.pth"]
    flags += ["--output", path, "--window", "64", "--classes", *CLASSES, "--check", images]
    assert export.main(list(map(str, flags))) == 0
    assert "within the tolerance" in capsys.readouterr().out

    detector = OnnxDetector(path)
    is_rcnn = "faster_rcnn" in config
    assert detector.description.batch == (1 if is_rcnn else None)
    assert detector.description.outputs == ("regions" if is_rcnn else "rotated_pairs")
    cfg = load_config(tmp_path / "config.yaml")
    model = instantiate(cfg.model)
    load_weights(model, tmp_path / "model.pth")
    reference = ImageDetector(model, instantiate(cfg.dataloader.test.mapper.augmentations))
    windows = [
        np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for seed in range(3)
    ]
    parity = compare(reference, detector, windows, score_floor=0.0)
    assert parity.num_detections > 10 and parity.is_within()

    # Together or one after the other.
    ((boxes, *_), (others, *_)) = detector(windows[:2])
    assert boxes.shape[1] == 5
    torch.testing.assert_close(others, detector(windows[1:2])[0][0], atol=0.01, rtol=0)
