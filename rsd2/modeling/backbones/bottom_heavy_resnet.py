"""ResNet whose depth lies in its early stages, where tiny objects are still visible.

A residual block costs the same multiply-adds in every stage, because a stage with half the width
has twice the resolution on both axes. So blocks can move from late stages to early ones at equal
cost; the parameters, most of them in late and wide blocks, become fewer.

Shapes: B images, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, CNNBlockBase, ResNet
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rsd2.layers import BlurPool


class ResNetStem(CNNBlockBase):
    """One convolution and, if wanted, a 3x3 max-pooling of stride 2.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the convolution.
        kernel_size: side of the convolution's kernel, odd.
        stride: stride of the convolution, 1 or 2.
        pool: halve the resolution after it.
        norm: see `detectron2.layers.get_norm`.
        antialias: subsample by low-pass filters: the convolution has stride 1, and a `BlurPool`
            stands for each halving, that of the pooling too.
        antialias_gain: gain of these filters.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        pool: bool = True,
        norm: str = "BN",
        antialias: bool = False,
        antialias_gain: float = 1.0,
    ) -> None:
        if kernel_size % 2 == 0 or stride not in (1, 2):
            raise ValueError(
                "the stem needs an odd kernel_size and a stride of 1 or 2, got "
                f"{kernel_size} and {stride}"
            )
        super().__init__(in_channels, out_channels, stride * (2 if pool else 1))
        self.conv1 = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=1 if antialias else stride,
            padding=kernel_size // 2,
            bias=False,
            norm=get_norm(norm, out_channels),
        )
        weight_init.c2_msra_fill(self.conv1)

        self.pool = pool
        self.blur = None
        if antialias:
            halvings = int(stride == 2) + int(pool)
            filters = [BlurPool(out_channels, antialias_gain) for _ in range(halvings)]
            self.blur = nn.Sequential(*filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        x = F.relu_(self.conv1(x))
        if self.blur is not None:
            return self.blur(x)
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.pool else x


class StridedBasicBlock(BasicBlock):
    """Detectron2's basic block, with a projection also where only the resolution changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution and of the shortcut.
        norm: see `detectron2.layers.get_norm`.
        antialias: filter and subsample after the first convolution, which then has stride 1.
        antialias_gain: gain of the filter.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str = "BN",
        antialias: bool = False,
        antialias_gain: float = 1.0,
    ) -> None:
        filtered = antialias and stride == 2
        super().__init__(in_channels, out_channels, stride=1 if filtered else stride, norm=norm)
        _complete(self, out_channels, stride, norm, antialias_gain if filtered else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        if self.blur is None:
            return super().forward(x)
        out = self.conv2(self.blur(F.relu_(self.conv1(x))))
        # The projection has no bias, so it may follow the filter, at a quarter of the work.
        return F.relu_(out + self.shortcut(self.shortcut_blur(x)))


class StridedBottleneckBlock(BottleneckBlock):
    """Detectron2's bottleneck, stride in the 3x3, with a projection wherever it has a stride.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; the inner width is a quarter of it.
        stride: stride of the 3x3 convolution and of the shortcut.
        norm: see `detectron2.layers.get_norm`.
        antialias: filter and subsample after the 3x3 convolution, which then has stride 1.
        antialias_gain: gain of the filter.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str = "BN",
        antialias: bool = False,
        antialias_gain: float = 1.0,
    ) -> None:
        filtered = antialias and stride == 2
        inner = out_channels // 4
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=inner,
            stride=1 if filtered else stride,
            norm=norm,
        )
        _complete(self, inner, stride, norm, antialias_gain if filtered else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        if self.blur is None:
            return super().forward(x)
        out = self.blur(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        # The projection has no bias, so it may follow the filter, at a quarter of the work.
        return F.relu_(self.conv3(out) + self.shortcut(self.shortcut_blur(x)))


def _complete(
    block: StridedBasicBlock | StridedBottleneckBlock,
    inner_channels: int,
    stride: int,
    norm: str,
    gain: float | None,
) -> None:
    """Add the parts that Detectron2's block lacks: filters, and a projection for a mere stride.

    Args:
        block: block that its base class has set up.
        inner_channels: channels of the branch where it is subsampled.
        stride: stride of the whole block.
        norm: norm of the projection.
        gain: gain of the filters; None for strided convolutions without filters.
    """
    block.stride = stride
    # Detectron2 projects only where the channels change.
    if stride != 1 and block.shortcut is None:
        block.shortcut = Conv2d(
            block.in_channels,
            block.out_channels,
            kernel_size=1,
            stride=stride if gain is None else 1,
            bias=False,
            norm=get_norm(norm, block.out_channels),
        )
        weight_init.c2_msra_fill(block.shortcut)

    block.blur = None if gain is None else BlurPool(inner_channels, gain)
    block.shortcut_blur = None if gain is None else BlurPool(block.in_channels, gain)


@BACKBONE_REGISTRY.register()
class BottomHeavyResNet(ResNet):
    """A ResNet of any depths, strides and stem; by default the bottom-heavy ResNet-50.

    Source: "Rethinking the Backbone Architecture for Tiny Object Detection" (VISAPP 2023, arXiv
    2303.11267): 7, 6, 2, 1 bottlenecks instead of 3, 4, 6, 3, a stem that halves the resolution
    once instead of twice, a first stage that halves it too. Strides of the outputs are those of
    every ResNet: 4, 8, 16, 32. With ``depths=(3, 4, 6, 3), stage_strides=(1, 2, 2, 2),
    stem_kernel_size=7, stem_stride=2`` it is the ordinary ResNet-50, so that the two differ in
    nothing else. Modules have Detectron2's names (``stem``, ``res2`` ... ``res5``).

    Args:
        depths: blocks of ``res2``, ``res3``, ...; one to four stages.
        stage_strides: 1 or 2 for each stage.
        bottleneck: bottleneck blocks (50 layers and more), else basic ones.
        width: channels inside the blocks of ``res2``; doubles with each stage. Outputs have
            four times as many with bottlenecks.
        stem_channels: channels of the stem's output; ``width`` if None.
        stem_kernel_size: side of the stem's kernel, odd.
        stem_stride: stride of the stem's convolution, 1 or 2.
        stem_pool: the stem ends with a max-pooling of stride 2.
        norm: "BN", "FrozenBN", "GN", "SyncBN", or a callable. "FrozenBN" does not learn from
            random weights.
        norm_eval: BatchNorm always uses its running statistics, while its affine parameters are
            trained: how the original fine-tunes with one image per GPU. Needs good statistics.
        antialias: subsample by binomial low-pass filters (arXiv 2310.14221).
        antialias_gain: gain of these filters; 2 is the original's.
        zero_init_residual: the last norm of each block starts at zero, so that it is an identity.
        out_features: stages to return, of ``stem``, ``res2``, ...; later stages are not built.
        freeze_at: 0 trains everything, 1 freezes the stem, 2 also ``res2``, and so on. Frozen
            BatchNorm becomes FrozenBN.

    Raises:
        ValueError: depths and strides do not fit, or ``norm_eval`` without BatchNorm.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (7, 6, 2, 1),
        stage_strides: Sequence[int] = (2, 2, 2, 2),
        bottleneck: bool = True,
        width: int = 64,
        stem_channels: int | None = None,
        stem_kernel_size: int = 3,
        stem_stride: int = 1,
        stem_pool: bool = True,
        norm: str = "BN",
        norm_eval: bool = False,
        antialias: bool = False,
        antialias_gain: float = 1.0,
        zero_init_residual: bool = True,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        freeze_at: int = 0,
    ) -> None:
        if not 1 <= len(depths) == len(stage_strides) <= 4 or min(depths) < 1:
            raise ValueError(
                "depths (>= 1) and stage_strides must have the same length, 1 to 4, got "
                f"{list(depths)} and {list(stage_strides)}"
            )
        if not set(stage_strides) <= {1, 2}:
            raise ValueError(f"stage_strides must be 1 or 2, got {list(stage_strides)}")
        if norm_eval and norm not in ("BN", "SyncBN"):
            raise ValueError(f"norm_eval needs BatchNorm, but norm is {norm!r}")

        stem = ResNetStem(
            3,
            width if stem_channels is None else stem_channels,
            kernel_size=stem_kernel_size,
            stride=stem_stride,
            pool=stem_pool,
            norm=norm,
            antialias=antialias,
            antialias_gain=antialias_gain,
        )

        # Only the first block of a stage has its stride.
        stages, channels = [], stem.out_channels
        for index, (count, stride) in enumerate(zip(depths, stage_strides)):
            out_channels = width * 2**index * (4 if bottleneck else 1)
            stages.append(
                ResNet.make_stage(
                    StridedBottleneckBlock if bottleneck else StridedBasicBlock,
                    count,
                    stride_per_block=[stride] + [1] * (count - 1),
                    in_channels=channels,
                    out_channels=out_channels,
                    norm=norm,
                    antialias=antialias,
                    antialias_gain=antialias_gain,
                )
            )
            channels = out_channels

        if zero_init_residual:
            for block in (block for stage in stages for block in stage):
                # FrozenBN keeps its weights in buffers, which are not to be trained from zero.
                last = (block.conv3 if bottleneck else block.conv2).norm
                if isinstance(getattr(last, "weight", None), nn.Parameter):
                    nn.init.zeros_(last.weight)

        super().__init__(stem, stages, out_features=list(out_features), freeze_at=freeze_at)
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> BottomHeavyResNet:
        """Switch between training and evaluation.

        Args:
            mode: True for training; with ``norm_eval``, BatchNorm stays in evaluation.

        Returns:
            The backbone.
        """
        super().train(mode)
        # Detectron2 calls train() at every evaluation's end, so this is decided here, not once.
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
