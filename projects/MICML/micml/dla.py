"""The static branch: DLA-34 at stride 1 on the key frame, and the aggregation of its levels.

Shapes: B images, K levels of which level j has c_j channels and stride 2^j, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn
from torch.nn import functional as F

from rsd2.layers import DeformableConv2d, at_least_float32


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> Conv2d:
    """Make a convolution with BatchNorm whose output has the input's size divided by the stride."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
        norm=get_norm("BN", out_channels),
    )
    c2_msra_fill(conv)
    return conv


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose residual is an argument.

    Source: DLA (arXiv 1707.06484), section 3.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output and of the residual.
        stride: stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, 3, stride)
        self.conv2 = _conv(out_channels, out_channels, 3)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) and a residual of the output's shape to the output.

        Args:
            x: (B, in_channels, H, W).
            residual: (B, out_channels, H / stride, W / stride).

        Returns:
            A tensor like ``residual``.
        """
        return F.relu_(self.conv2(F.relu_(self.conv1(x))) + residual)


class Tree(nn.Module):
    """Two blocks in a row and a 1x1 convolution over both, and over joining earlier maps.

    Source: DLA (arXiv 1707.06484), figure 3.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first block; the residual is max-pooled by it.
        root_channels: total channels of the other maps that join at the root.
        keeps_input: whether the pooled input joins at the root too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        root_channels: int = 0,
        keeps_input: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.keeps_input = stride, keeps_input
        self.block1 = ResidualBlock(in_channels, out_channels, stride)
        self.block2 = ResidualBlock(out_channels, out_channels)
        self.root = _conv(
            2 * out_channels + root_channels + keeps_input * in_channels, out_channels, 1
        )

        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, *joining: torch.Tensor) -> torch.Tensor:
        """Apply the tree.

        Args:
            x: (B, in_channels, H, W).
            joining: (B, *, H / stride, W / stride) each, ``root_channels`` together.

        Returns:
            (B, out_channels, H / stride, W / stride).
        """
        pooled = F.max_pool2d(x, self.stride) if self.stride > 1 else x
        residual = pooled if self.shortcut is None else self.shortcut(pooled)
        first = self.block1(x, residual)
        # The second block's residual is its own input, as in an ordinary residual block.
        second = self.block2(first, first)
        maps = [second, first, *([pooled] if self.keeps_input else []), *joining]
        return F.relu_(self.root(torch.cat(maps, dim=1)))


class DoubleTree(nn.Module):
    """Two trees in a row; the second one's root also sees the pooled input and the first's output.

    Source: DLA (arXiv 1707.06484), figure 3.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        official_layout: whether to build the outer shortcut of the official program, which nothing
            uses.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, official_layout: bool = False
    ) -> None:
        super().__init__()
        self.tree1 = Tree(in_channels, out_channels, stride=2)
        self.tree2 = Tree(out_channels, out_channels, root_channels=in_channels + out_channels)
        if official_layout:
            self.shortcut = _conv(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        first = self.tree1(x)
        return self.tree2(first, F.max_pool2d(x, 2), first)


class DLA34(nn.Module):
    """DLA-34 without stride in its first layers, down to stride 16.

    Source: DLA (arXiv 1707.06484), table 1; "Objects as Points" (arXiv 1904.07850).

    Args:
        channels: c_0..c_4, channels of the levels.
        official_layout: whether to build what the official program builds and never uses: its level
            5 and two shortcuts, 9.09 M parameters at the usual widths. For exact copies of
            checkpoints; they get no gradient.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32, 64, 128, 256), *, official_layout: bool = False
    ) -> None:
        super().__init__()
        c0, c1, c2, c3, c4 = channels
        self.stem = _conv(3, c0, 7)
        self.level0 = _conv(c0, c0, 3)
        self.level1 = _conv(c0, c1, 3, stride=2)
        self.level2 = Tree(c1, c2, stride=2)
        self.level3 = DoubleTree(c2, c3, official_layout=official_layout)
        self.level4 = DoubleTree(c3, c4, official_layout=official_layout)
        # The detector needs four levels only; level 5 exists for exact copies of checkpoints.
        if official_layout:
            self.level5 = Tree(c4, 2 * c4, stride=2, keeps_input=True)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the levels.

        Args:
            images: (B, 3, H, W), normalised; H and W multiples of 16.

        Returns:
            Five maps, map j of shape (B, c_j, H / 2^j, W / 2^j).
        """
        level0 = F.relu_(self.level0(F.relu_(self.stem(images))))
        levels = [level0, F.relu_(self.level1(level0))]
        for stage in (self.level2, self.level3, self.level4):
            levels.append(stage(levels[-1]))
        return levels


class DLABackbone(Backbone):
    """A DLA-34 whose last level alone is seen, for the training of an ``ImageClassifier``.

    Args:
        net: the network.
    """

    def __init__(self, net: DLA34) -> None:
        super().__init__()
        self.net = net

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and the stride of ``level4``."""
        return {"level4": ShapeSpec(channels=self.net.level4.tree2.root.out_channels, stride=16)}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map (B, 3, H, W), normalised, H and W multiples of 16, to ``level4`` of stride 16."""
        return {"level4": self.net(images)[-1]}


class DeformableUnit(nn.Module):
    """A modulated deformable 3x3 convolution, BatchNorm and ReLU.

    Source: Deformable ConvNets v2 (arXiv 1811.11168), section 3.1. The offsets are (dy, dx) for
    each tap; at the start they are 0 and every tap counts half.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 27, 3, padding=1)
        # Zero offsets make an ordinary convolution, and the sigmoid of 0 halves every tap.
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

        self.conv = DeformableConv2d(in_channels, out_channels)
        nn.init.zeros_(self.conv.bias)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        # offsets are pixels: half precision would round them to a quarter where they are large
        offsets, modulation = at_least_float32(self.offset(x)).split([18, 9], dim=1)
        moved = self.conv(at_least_float32(x), offsets, modulation.sigmoid())
        return F.relu_(self.norm(moved))


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Make a depth-wise transposed convolution that starts as bilinear upsampling and is learnable.

    Source: the programs of CenterNet and DSFNet.

    Args:
        channels: channels of input and output.
        factor: f, even; the kernel has 2f x 2f entries.

    Returns:
        The layer.
    """
    layer = nn.ConvTranspose2d(
        channels,
        channels,
        2 * factor,
        stride=factor,
        padding=factor // 2,
        groups=channels,
        bias=False,
    )
    center = factor - 0.5
    weights = 1 - (torch.arange(2 * factor) - center).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(weights[:, None] * weights[None, :])
    return layer


class IDAUp(nn.Module):
    """Sum of maps of growing stride, from the finest to the coarsest, at the finest one's stride.

    Source: iterative deep aggregation, DLA (arXiv 1707.06484), section 3.1, with deformable
    convolutions as in "Objects as Points" (arXiv 1904.07850).

    Args:
        channels: c_0..c_n of the maps; the output has c_0.
        factors: ratios of the strides of maps 1..n to that of map 0.
    """

    def __init__(self, channels: Sequence[int], factors: Sequence[int]) -> None:
        super().__init__()
        width = channels[0]
        self.project = nn.ModuleList(DeformableUnit(c, width) for c in channels[1:])
        self.up = nn.ModuleList(bilinear_upsampling(width, factor) for factor in factors)
        self.node = nn.ModuleList(DeformableUnit(width, width) for _ in factors)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Aggregate the maps.

        Args:
            maps: n + 1 maps, map 0 of (B, c_0, H, W), map i of (B, c_i, H / f_i, W / f_i).

        Returns:
            n + 1 maps: map 0 unchanged, and the running sums after each further map, (B, c_0, H,
            W) where ``factors`` are equal, and always for the last.
        """
        summed = [maps[0]]
        for x, project, up, node in zip(maps[1:], self.project, self.up, self.node):
            # Summed, never concatenated: every map is projected to the width of the finest one
            # first.
            summed.append(node(up(project(x)) + summed[-1]))
        return summed


class DLAUp(nn.Module):
    """Aggregation of every level with all coarser ones.

    Source: "Objects as Points" (arXiv 1904.07850), figure 6.

    Args:
        channels: c_0..c_{K-1}, channels of the levels, strides 1, 2, 4...
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # Step j reduces all coarser levels to the width of level j, so the next step finds them
        # one level narrower, not at their own widths.
        self.steps = nn.ModuleList(
            IDAUp([channels[j], *[channels[j + 1]] * coarser], [2] * coarser)
            for coarser, j in enumerate(reversed(range(len(channels) - 1)), start=1)
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Aggregate the levels.

        Args:
            levels: K maps, map j of (B, c_j, H / 2^j, W / 2^j).

        Returns:
            K maps of the same shapes.
        """
        levels = list(levels)
        aggregated = [levels[-1]]
        for coarser, step in enumerate(self.steps, start=1):
            # Each step starts one level finer and overwrites what it has aggregated.
            first = len(levels) - 1 - coarser
            levels[first:] = step(levels[first:])
            aggregated.insert(0, levels[-1])
        return aggregated


class StaticBranch(nn.Module):
    """Features of the key frame alone, at strides 1, 2, 4...

    Source: DSFNet (GRSL 2021), the static branch.

    Args:
        channels: c_0..c_4 of DLA-34.
        num_levels: number of maps to return; the coarser ones only feed them.
        official_layout: see `DLA34`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        num_levels: int = 3,
        *,
        official_layout: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels[:num_levels])
        self.backbone = DLA34(channels, official_layout=official_layout)
        self.aggregation = DLAUp(channels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the maps.

        Args:
            images: (B, 3, H, W), normalised; H and W multiples of 16.

        Returns:
            ``num_levels`` maps, map j of shape (B, c_j, H / 2^j, W / 2^j).
        """
        return self.aggregation(self.backbone(images))[: len(self.channels)]
