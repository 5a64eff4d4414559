"""A detector of every family finds as an ONNX file what it finds in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog

from rsd2 import load_detector
from rsd2.commands import export, make_synthetic, predict
from rsd2.config import load_config
from rsd2.data.datasets.builtin import register_all_video, register_builtin
from rsd2.export.description import ExportError
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


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A generated test set of two videos, small enough for windows of 48 pixels."""
    folder = tmp_path_factory.mktemp("data") / "synthetic_video"
    flags = ["--kind", "video", "--output", folder, "--split", "test", "--num-images", "2"]
    flags += ["--num-frames", "3", "--size", "48", "--density", "8", "--num-workers", "0"]
    assert make_synthetic.main(list(map(str, flags))) == 0
    register_builtin()
    original = MetadataCatalog.get("synthetic_video_test").builtin_root
    register_all_video(folder.parent)
    yield folder
    register_all_video(original)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dsfnet", {}),
        ("dsfnet_dynamic", {}),
        ("dsfnet_static", {}),
        ("micml", {"motion_at_eval": True}),
    ],
)
def test_clips_have_the_same_detections_and_scores(
    name: str,
    options: dict,
    repository: Path,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    pytest.importorskip("onnxruntime")
    config = repository / f"projects/MICML/configs/{name}_small_synthetic_video.py"
    write_trained(config, tmp_path, num_classes=1, test_set="synthetic_video_test", **options)

    checkpoint = torch.load(tmp_path / "model.pth", weights_only=True)
    checkpoint["model"]["heads.wh.2.bias"] += 4  # empty boxes would be dropped
    torch.save(checkpoint, tmp_path / "model.pth")

    path, clip = tmp_path / "model.onnx", next(videos.rglob("img1"))
    flags = ["--config-file", tmp_path / "config.yaml", "--weights", tmp_path / "model.pth"]
    flags += ["--output", path, "--window", "48", "--check", clip, "--score"]
    assert export.main(list(map(str, flags))) == 0
    printed = capsys.readouterr().out
    assert "within the tolerance" in printed and "equal within" in printed and "AP50" in printed

    detector = OnnxDetector(path)
    assert detector.description.num_frames == 5
    assert detector.description.batch == (1 if options else None)
    with pytest.raises(ExportError, match="detects objects in videos, not in images"):
        detector([np.zeros((48, 48, 3), np.uint8)])
    with pytest.raises(ValueError, match="use rsd2 predict"):
        load_detector(path)
    words = ["--weights", path, "--input", clip, "--output", tmp_path / "out"]
    assert predict.main([*map(str, words), "--score-threshold", "0"]) == 0
    rows = (tmp_path / "out").rglob("*.txt")
    assert any(row.read_text() for row in rows)
