"""Features of objects: rotated crops of boxes, through a frozen backbone, averaged over its map.

Source: MutDet's ``Tool_feat_patch_extractor_detector.py``: a rotated RoI-align with 1.5
times the sides of the box and 224 x 224 bins, which stretches the crop to a square and turns the
long side along x; torchvision's ResNet-50 of ImageNet; the average of its last stage.

Shapes: N boxes, S side of the crops, F features, H, W height and width of the image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from rsd2.modeling import TimmBackbone
from rsd2.modeling.backbones.small_resnet import small_resnet
from rsd2.ops import roi_align_rotated
from rsd2.weights.checkpoint import load_state
from rsd2.weights.tensor_files import read_tensors, tensors_digest

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Mean of ImageNet, RGB, 0 to 255; the detectors' configs use the same."""
PIXEL_STD = (58.395, 57.12, 57.375)
BACKBONES = ("resnet50", "small", "efficientnet_lite0")
_PREFIX = "backbone."


@dataclass(frozen=True)
class CropSettings:
    """Settings of the crops.

    Attributes:
        size: S, pixels.
        context: factor of both sides of the box, > 0.
        sampling_ratio: samples per bin and side; 0 for one per covered pixel.
        keep_aspect: whether to widen the shorter side to the longer one instead of stretching the
            crop.
        image_size: longer side that the image is resized to beforehand, pixels; None to leave it.
            The official code takes crops of DOTA's 800-pixel tiles from 1024 pixels.
    """

    size: int = 224
    context: float = 1.5
    sampling_ratio: int = 2
    keep_aspect: bool = False
    image_size: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.size,) if self.image_size is None else (self.size, self.image_size)
        if min(sizes) < 1 or self.context <= 0:
            raise ValueError(
                "size and image_size must be at least 1 and context positive, got "
                f"{self.size}, {self.image_size} and {self.context}"
            )


class PooledBackbone(nn.Module):
    """A backbone without its classifier, and the average over its last map."""

    def __init__(
        self, backbone: nn.Module, output: str, pixels: tuple[float, float] | None = None
    ) -> None:
        """Wrap a backbone.

        Args:
            backbone: module that maps (N, 3, S, S) to a dict with a map (N, F, h, w).
            output: key of the map in the dict.
            pixels: mean and deviation that the backbone was trained with, of all channels; None
                for ImageNet's, with which crops come.
        """
        super().__init__()
        self.backbone, self.output, self.pixels = backbone, output, pixels

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops (N, 3, S, S), normalised by `normalize`, to features (N, F)."""
        if self.pixels is not None:
            mean, std = (
                crops.new_tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD)
            )
            crops = (crops * std + mean - self.pixels[0]) / self.pixels[1]
        return self.backbone(crops)[self.output].mean(dim=(2, 3))


class FeatureExtractor:
    """Features of the boxes of an image."""

    def __init__(
        self,
        backbone: nn.Module,
        crops: CropSettings | None = None,
        *,
        name: str = "",
        device: str = "cpu",
        batch_size: int = 64,
        amp: bool = False,
    ) -> None:
        """Keep the settings and put the backbone into evaluation mode.

        Args:
            backbone: module that maps normalised crops (N, 3, S, S) to features (N, F).
            crops: settings of the crops; the defaults if None.
            name: name of the backbone and its weights, for the run's settings.
            device: device to work on.
            batch_size: number of crops at once, >= 1.
            amp: whether to run the backbone in bfloat16.
        """
        self._backbone = backbone.to(device).eval()
        self._crops, self._name, self._device = crops or CropSettings(), name, device
        self._batch_size, self._amp = batch_size, amp

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the features, as plain values."""
        return {"backbone": self._name, "amp": self._amp, "crops": asdict(self._crops)}

    @torch.no_grad()
    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Compute the features of boxes.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 5) pixels and degrees.

        Returns:
            (N, F) float32; (0, 0) if there are no boxes.
        """
        rows = []
        for start in range(0, len(boxes), self._batch_size):
            chosen = torch.from_numpy(boxes[start : start + self._batch_size])
            # Batches of crops bound the memory: an image may have a thousand boxes of 224 x 224
            # pixels.
            crops = cut_crops(image, chosen, self._crops, device=self._device)
            with torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._amp):
                rows.append(self._backbone(crops).float().cpu().numpy())

        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def cut_crops(
    image: np.ndarray, boxes: Tensor, settings: CropSettings, *, device: str = "cpu"
) -> Tensor:
    """Cut normalised crops out of an image, each turned so that its box's side w lies along x.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 5) pixels and degrees.
        settings: settings of the crops.
        device: device to work on.

    Returns:
        (N, 3, S, S) float32; 0, the mean colour, beyond the image.
    """
    boxes = boxes.to(device, torch.float32).clone()
    if settings.image_size is not None:
        height, width = image.shape[:2]
        scale = settings.image_size / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        boxes[:, :4] *= scale

    if settings.keep_aspect:
        # Both sides take the longer one, so that the crop is not stretched.
        boxes[:, 2:4] = boxes[:, 2:4].amax(dim=1, keepdim=True)
    boxes[:, 2:4] *= settings.context

    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
    # Normalised first: what lies beyond the image becomes 0, the mean colour, and not black.
    return roi_align_rotated(
        normalize(pixels), rois, settings.size, sampling_ratio=settings.sampling_ratio
    )


def normalize(pixels: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its deviation: (..., 3, H, W) RGB, 0 to 255."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std


def load_backbone(kind: str, weights: str | Path) -> tuple[PooledBackbone, str]:
    """Build a backbone and load its weights.

    Args:
        kind: ``"resnet50"``; ``"small"``, the backbone of the small detector; or
            ``"efficientnet_lite0"``, which needs timm.
        weights: file to read, without running any of its code. It is a checkpoint of an embedder
            or a detector, whose part ``backbone`` is used; the state of a small backbone;
            torchvision's file of ResNet-50, whose ``fc`` is not needed; or the file that
            ``rsd2 get-weights`` wrote.

    Returns:
        (the backbone with its average, in evaluation mode; a name made of its kind and the hash of
        its weights).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown kind, or a file that cannot be read as tensors.
        CheckpointError: if the weights belong to another model; the message lists keys.
    """
    if kind not in BACKBONES:
        raise ValueError(f"the backbone must be one of {BACKBONES}, got {kind!r}")
    if kind == "efficientnet_lite0":
        network = TimmBackbone(f"tf_{kind}", out_features=["last_feat"], weights=str(weights))
        # As the file was trained, not with ImageNet's own statistics.
        pooled = PooledBackbone(network, "last_feat", pixels=(127.0, 128.0))
        return pooled.eval(), f"{kind}-{tensors_digest(pooled.state_dict())[:16]}"

    state = read_tensors(weights)
    parts = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}

    # Without a part "backbone", a ResNet-50 has torchvision's names.
    if kind == "resnet50" and not parts:
        network = torchvision.models.resnet50(weights=None)
        network.fc = nn.Identity()
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        load_state(network, state, strict=True, source=f"{weights} (as torchvision's resnet50)")
        pooled = PooledBackbone(create_feature_extractor(network, {"layer4": "map"}), "map")
    else:
        network = _resnet50() if kind == "resnet50" else small_resnet(out_features=["res5"])
        load_state(network, parts or state, strict=True, source=f"{weights} (as {kind} backbone)")
        pooled = PooledBackbone(network, "res5")

    return pooled.eval(), f"{kind}-{tensors_digest(pooled.state_dict())[:16]}"


def _resnet50() -> ResNet:
    """Make the backbone of the detectors, whose norms also accept the weights of frozen ones."""
    stages = ResNet.make_default_stages(50, stride_in_1x1=False, norm="BN")
    return ResNet(BasicStem(norm="BN"), stages, out_features=["res5"])
