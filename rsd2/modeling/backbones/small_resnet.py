"""A narrow ResNet for small images and machines without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BasicBlock, CNNBlockBase, ResNet
from torch import nn
from torch.nn import functional as F


class ConvStem(CNNBlockBase):
    """Two 3x3 convolutions of stride 2: no pooling, which would blur where small objects are.

    Source: the deep stem of "Bag of Tricks" (arXiv 1812.01187), section 4.2, without its pooling.

    Args:
        in_channels: channels of the image.
        out_channels: channels of both convolutions.
        norm: see `detectron2.layers.get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 32, norm: str = "BN") -> None:
        super().__init__(in_channels, out_channels, stride=4)
        widths = (in_channels, out_channels, out_channels)
        self.convs = nn.Sequential(
            *(
                Conv2d(a, b, 3, stride=2, padding=1, bias=False, norm=get_norm(norm, b))
                for a, b in zip(widths[:-1], widths[1:])
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / 4, W / 4)."""
        for conv in self.convs:
            x = F.relu_(conv(x))
        return x


def small_resnet(
    width: int = 32,
    blocks: Sequence[int] = (1, 2, 2, 2),
    norm: str = "BN",
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    in_channels: int = 3,
) -> ResNet:
    """Detectron2's ResNet of basic blocks with few channels, trained from random weights.

    Source: "Deep Residual Learning" (arXiv 1512.03385), table 1, other widths, depths, stem.

    Args:
        width: channels of stem and ``res2``; every later stage doubles them.
        blocks: basic blocks of ``res2``, ``res3``, ...
        norm: "BN", "GN", "SyncBN"; a frozen norm does not learn from random weights.
        out_features: stages to return; ``res2`` has stride 4, each later one twice that.
        in_channels: channels of the image.

    Returns:
        The backbone, nothing frozen.
    """
    # The stem has stride 4 already, so res2 keeps its resolution.
    stem = ConvStem(in_channels, width, norm)
    stages, in_channels = [], width
    for index, count in enumerate(blocks):
        out_channels = width * 2**index
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                count,
                stride_per_block=[1 if index == 0 else 2] + [1] * (count - 1),
                in_channels=in_channels,
                out_channels=out_channels,
                norm=norm,
            )
        )
        in_channels = out_channels
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=0)
