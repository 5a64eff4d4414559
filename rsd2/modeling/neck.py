"""The neck: backbone features become a pyramid of equal channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from torch import nn


class ChannelMapper(nn.Module):
    """Project feature maps to one width and add coarser levels.

    Source: Deformable DETR (arXiv 2010.04159), appendix A.2: 1x1 convolutions with GroupNorm, and
    a stride-2 3x3 convolution on the last backbone map (not on its projection) for a further level.

    Args:
        input_shapes: backbone outputs by name, with channels and stride.
        in_features: names to use, fine to coarse.
        out_channels: channels of every level; divisible by ``num_norm_groups``.
        num_levels: number of levels of the result; at least as many as ``in_features``.
        num_norm_groups: groups of GroupNorm.
    """

    def __init__(
        self,
        input_shapes: dict[str, ShapeSpec],
        in_features: Sequence[str],
        out_channels: int = 256,
        num_levels: int = 4,
        num_norm_groups: int = 32,
    ) -> None:
        super().__init__()
        missing = [name for name in in_features if name not in input_shapes]
        if missing:
            raise ValueError(f"the backbone has no {missing}; it has {sorted(input_shapes)}")
        if num_levels < len(in_features):
            raise ValueError(f"num_levels {num_levels} < number of in_features {len(in_features)}")

        self.in_features = tuple(in_features)
        last = input_shapes[self.in_features[-1]].channels

        def block(channels: int, kernel: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
            nn.init.xavier_uniform_(conv.weight)
            return nn.Sequential(conv, nn.GroupNorm(num_norm_groups, out_channels))

        self.projections = nn.ModuleList(
            block(input_shapes[name].channels, 1, 1) for name in self.in_features
        )
        self.extra = nn.ModuleList(
            block(last if i == 0 else out_channels, 3, 2)
            for i in range(num_levels - len(self.in_features))
        )

    def forward(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Map backbone features {name: (B, C_i, H_i, W_i)} to levels (B, C, H_l, W_l)."""
        selected = [features[name] for name in self.in_features]
        levels = [project(x) for project, x in zip(self.projections, selected)]
        # The last backbone map itself, not its projection.
        coarse = selected[-1]

        for layer in self.extra:
            coarse = layer(coarse)
            levels.append(coarse)
        return levels
