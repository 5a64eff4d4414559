"""A detector that is small enough to train in a test, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Instances, RotatedBoxes
from torch import nn
from torch.nn import functional as F

from rsd2.modeling import (
    AngleCoder,
    ChannelMapper,
    DeformableEncoder,
    HungarianMatcher,
    RotatedDeformableDecoder,
    RotatedDeformableDETR,
    SetCriterion,
)
from rsd2.modeling.matcher import Targets

DIM = 32


class PatchBackbone(Backbone):
    """Three convolutions over disjoint patches, without bias: zero padding stays exactly zero."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, channels, size, size, bias=False)
            for inputs, size in ((3, 8), (channels, 2), (channels, 2))
        )

    def output_shape(self) -> dict[str, ShapeSpec]:
        strides = {"res3": 8, "res4": 16, "res5": 32}
        return {k: ShapeSpec(channels=self.channels, stride=s) for k, s in strides.items()}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = {}
        for name, conv in zip(("res3", "res4", "res5"), self.convs):
            x = F.relu(conv(x))
            features[name] = x
        return features


def build(num_classes: int = 3, seed: int = 0, **changes: Any) -> RotatedDeformableDETR:
    torch.manual_seed(seed)
    sizes = {
        "embed_dim": DIM,
        "num_heads": 4,
        "num_levels": 4,
        "num_points": 2,
        "feedforward_dim": 64,
        "dropout": 0.0,
    }
    backbone = changes.pop("backbone", None) or PatchBackbone()
    neck = ChannelMapper(backbone.output_shape(), ["res3", "res4", "res5"], DIM, 4, 8)
    arguments = {"num_queries": 10, "num_denoising_queries": 6, "max_detections": 20} | changes
    return RotatedDeformableDETR(
        backbone=backbone,
        neck=neck,
        encoder=DeformableEncoder(1, **sizes),
        decoder=RotatedDeformableDecoder(2, **sizes),
        num_classes=num_classes,
        criterion=SetCriterion(HungarianMatcher()),
        embed_dim=DIM,
        num_levels=4,
        **arguments,
    )


@pytest.fixture(scope="session")
def build_detector() -> Callable[..., RotatedDeformableDETR]:
    """Function that builds a tiny detector: 1 + 2 layers, 10 queries, 3 classes."""
    return build


@pytest.fixture(scope="session")
def make_input() -> Callable[..., dict[str, Any]]:
    """Function that makes one dataset dict as the mapper gives it."""

    def make(
        boxes: list[tuple[float, ...]] | torch.Tensor = (),
        labels: list[int] | None = None,
        size: tuple[int, int] = (64, 64),
        seed: int = 0,
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        tensor = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 5)
        instances = Instances(size)
        instances.gt_boxes = RotatedBoxes(tensor)
        instances.gt_classes = torch.as_tensor(
            [0] * len(tensor) if labels is None else labels, dtype=torch.int64
        )
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        return {"image": image, "instances": instances, "height": size[0], "width": size[1]}

    return make


@pytest.fixture(scope="session")
def make_targets() -> Callable[..., Targets]:
    """Function that makes `Targets` of normalised boxes (cx, cy, w, h, degrees)."""

    def make(boxes: Any, labels: Any = None, dtype: torch.dtype = torch.float32) -> Targets:
        tensor = torch.as_tensor(boxes, dtype=dtype).reshape(-1, 5)
        numbers = torch.zeros(len(tensor)) if labels is None else torch.as_tensor(labels)
        return Targets(numbers.long(), tensor, AngleCoder().encode(tensor))

    return make
