"""A narrow ResNet for small images and machines without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet


def small_resnet(
    width: int = 32,
    blocks: Sequence[int] = (1, 2, 2, 2),
    norm: str = "BN",
    out_features: Sequence[str] = ("res3", "res4", "res5"),
) -> ResNet:
    """Detectron2's ResNet of basic blocks with few channels, trained from random weights.

    Source: "Deep Residual Learning" (arXiv 1512.03385), table 1, with other widths and depths.

    Args:
        width: channels of stem and ``res2``; every later stage doubles them.
        blocks: basic blocks of ``res2``, ``res3``, ...
        norm: "BN", "GN", "SyncBN"; a frozen norm does not learn from random weights.
        out_features: stages to return; ``res2`` has stride 4, each later one twice that.

    Returns:
        The backbone, nothing frozen.
    """
    stem = BasicStem(in_channels=3, out_channels=width, norm=norm)
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
