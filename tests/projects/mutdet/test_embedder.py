"""Crops and features: pixels by hand, the official stretching, weights of the right model.

Shapes: N boxes, S side of the crops.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import instantiate

from rsd2.config import get_config
from rsd2.modeling.backbones.small_resnet import small_resnet
from rsd2.projects.mutdet.embedder import (
    PIXEL_MEAN,
    PIXEL_STD,
    CropSettings,
    FeatureExtractor,
    PooledBackbone,
    cut_crops,
    load_backbone,
    normalize,
)
from rsd2.weights.errors import CheckpointError


def gradient_image() -> np.ndarray:
    """64 x 96 image: red grows with x, green with y."""
    ys, xs = np.mgrid[:64, :96]
    return np.stack([2 * xs, 3 * ys, np.full_like(xs, 50)], axis=2).astype(np.uint8)


def denormalized(crops: torch.Tensor) -> np.ndarray:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return (crops * std + mean).numpy()


def test_a_crop_without_context_is_the_image() -> None:
    settings = CropSettings(size=8, context=1.0, sampling_ratio=1)
    crop = denormalized(cut_crops(gradient_image(), torch.tensor([[24.0, 20, 8, 8, 0]]), settings))
    expected = gradient_image()[16:24, 20:28].transpose(2, 0, 1)
    np.testing.assert_allclose(crop[0], expected, atol=1e-3)


def test_context_stretch_and_turn() -> None:
    # w = 20 along y (a = -90: from top to bottom), h = 10 along x; 1.5 times them: 30 and 15
    box = torch.tensor([[40.0, 30, 20, 10, -90]])
    crop = denormalized(cut_crops(gradient_image(), box, CropSettings(size=4)))[0]
    green, red = crop[1] / 3, crop[0] / 2
    # along the crop's x, the image's y: from 15 to 45 in 4 bins, pixel centres half a pixel before
    np.testing.assert_allclose(green[1], 15 + 30 * (np.arange(4) + 0.5) / 4 - 0.5, atol=0.05)
    # along the crop's y, the image's -x: from 47.5 to 32.5
    np.testing.assert_allclose(red[:, 1], 47.5 - 15 * (np.arange(4) + 0.5) / 4 - 0.5, atol=0.05)
    square = denormalized(cut_crops(gradient_image(), box, CropSettings(size=4, keep_aspect=True)))[
        0
    ]
    np.testing.assert_allclose(
        square[0, :, 1] / 2, 55 - 30 * (np.arange(4) + 0.5) / 4 - 0.5, atol=0.05
    )


def test_resizing_the_image_first_shows_the_same_place() -> None:
    box = torch.tensor([[50.0, 30, 30, 16, 20]])
    plain = cut_crops(gradient_image(), box, CropSettings(size=16))
    large = cut_crops(gradient_image(), box, CropSettings(size=16, image_size=192))
    np.testing.assert_allclose(denormalized(large), denormalized(plain), atol=1.5)


def test_beyond_the_image_is_the_mean_colour() -> None:
    crop = cut_crops(gradient_image(), torch.tensor([[-200.0, -200, 20, 20, 0]]), CropSettings(8))
    assert (crop == 0).all()


def test_features_do_not_depend_on_batches() -> None:
    torch.manual_seed(0)
    backbone = PooledBackbone(small_resnet(width=8, out_features=["res5"]), "res5")
    boxes = np.array([[30, 30, 20 + k, 10, 10 * k] for k in range(5)], np.float32)
    results = [
        FeatureExtractor(backbone, CropSettings(32), batch_size=size)(gradient_image(), boxes)
        for size in (1, 2, 64)
    ]
    assert results[0].shape == (5, 64) and results[0].dtype == np.float32
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-4, atol=1e-5)
    extract = FeatureExtractor(backbone, CropSettings(32))
    assert extract(gradient_image(), boxes[:0]).shape == (0, 0)
    half = FeatureExtractor(backbone, CropSettings(32), amp=True)(gradient_image(), boxes)
    np.testing.assert_allclose(half, results[0], rtol=0.1, atol=0.05)


def test_torchvision_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    backbone, name = load_backbone("resnet50", tmp_path / "resnet50.pth")
    crops = torch.randn(2, 3, 64, 64)
    maps = {}
    network.layer4.register_forward_hook(lambda *args: maps.update(found=args[2]))
    with torch.no_grad():
        network(crops)
        found = backbone.eval()(crops)
    np.testing.assert_allclose(found, maps["found"].mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 2048) and name.startswith("resnet50-")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match="resnet18.pth .as torchvision's resnet50. does not"):
        load_backbone("resnet50", tmp_path / "resnet18.pth")


def test_resnet_of_an_embedder_and_of_a_detector(tmp_path: Path) -> None:
    model = get_config("common/models/rotated_deformable_detr_r50.py").model
    model.backbone.out_features = ["res5"]
    detector = instantiate(model.backbone).eval()
    state = {f"backbone.{key}": value for key, value in detector.state_dict().items()}
    torch.save({"model": {**state, "neck.x": torch.ones(1)}}, tmp_path / "detector.pth")
    backbone, _ = load_backbone("resnet50", tmp_path / "detector.pth")
    crops = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = detector(crops)["res5"].mean((2, 3))
        torch.testing.assert_close(backbone(crops), expected, rtol=1e-4, atol=1e-5)


def test_small_weights_of_embedder_and_of_a_detector(tmp_path: Path) -> None:
    state = small_resnet(out_features=["res5"]).state_dict()
    prefixed = {f"backbone.{key}": value for key, value in state.items()}
    names = set()
    for k, content in enumerate(
        (state, {"model": prefixed, "about": {}}, {"model": {**prefixed, "neck.x": torch.ones(1)}})
    ):
        torch.save(content, tmp_path / f"{k}.pth")
        backbone, name = load_backbone("small", tmp_path / f"{k}.pth")
        names.add(name)
        assert torch.equal(
            backbone.backbone.state_dict()["stem.convs.0.weight"], state["stem.convs.0.weight"]
        )
    assert len(names) == 1  # the hash is that of the weights, not of the file
    wider = small_resnet(width=16, out_features=["res5"]).state_dict()
    torch.save(wider, tmp_path / "wider.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        load_backbone("small", tmp_path / "wider.pth")
    with pytest.raises(ValueError, match="must be one of"):
        load_backbone("resnet51", tmp_path / "0.pth")
    with pytest.raises(FileNotFoundError):
        load_backbone("small", tmp_path / "none.pth")


def test_efficientnet_lite0_sees_pixels_as_it_was_trained(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    torch.save(classifier.state_dict(), tmp_path / "lite0.pth")
    backbone, name = load_backbone("efficientnet_lite0", tmp_path / "lite0.pth")
    pixels = 255 * torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        images = (pixels - 127) / 128
        expected = classifier.forward_intermediates(images, indices=1, intermediates_only=True)
        found = backbone(normalize(pixels))
    torch.testing.assert_close(found, expected[-1].mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert name.startswith("efficientnet_lite0-")


def test_normalize_and_settings_out_of_range() -> None:
    pixels = torch.tensor(PIXEL_MEAN).view(3, 1, 1).expand(3, 2, 2)
    assert (normalize(pixels) == 0).all()
    for wrong in ({"size": 0}, {"context": 0.0}, {"image_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            CropSettings(**wrong)
