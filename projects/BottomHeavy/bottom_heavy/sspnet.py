"""SSPNet: a feature pyramid whose levels are weighted by attention to objects of their size.

Shapes: B images, C channels, L levels from fine to coarse, level l at stride 4 * 2^l of an image
whose sides are multiples of the coarsest stride; H_l, W_l height and width of level l.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN
from torch import nn
from torch.nn import functional as F

ATTENTION_PREFIX = "attention_"
"""Level ``p2`` of `SSPNet` returns its attention logits under ``attention_p2``, in training."""


class DilatedPyramid(nn.Module):
    """Context of several extents: 1x1, two dilated 3x3 convolutions, and the mean of the map.

    Source: the ASPP of DeepLab v3 (arXiv 1706.05587), with SSPNet's dilations and no norm.

    Args:
        channels: C of input and output, a multiple of 4.
        dilations: dilations of the two 3x3 convolutions.
    """

    def __init__(self, channels: int, dilations: tuple[int, int] = (2, 5)) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {channels}")
        branch = channels // 4
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(channels, branch, 1),
                *(nn.Conv2d(channels, branch, 3, padding=d, dilation=d) for d in dilations),
                nn.Conv2d(channels, branch, 1),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        *local, last = self.branches
        outputs = [F.relu(conv(x)) for conv in local]
        # The mean of the map is one value per channel; it is broadcast over all pixels.
        mean = F.relu(last(x.mean(dim=(2, 3), keepdim=True)))
        return torch.cat([*outputs, mean.expand(-1, -1, *x.shape[-2:])], dim=1)


class ContextAttention(nn.Module):
    """Predict from all levels together where each level has objects to detect.

    Source: SSPNet (arXiv 2107.01548), the context attention module.

    Args:
        channels: C of every level, a multiple of 4.
        num_levels: L, number of levels.
        norm: norm of the fused map. The original uses "BN", which in its training sees the
            statistics of one image at a time; "GN" has as many parameters and no such weakness.
    """

    def __init__(self, channels: int = 256, num_levels: int = 4, norm: str = "GN") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(num_levels * channels, channels, 3, padding=1)
        self.context = DilatedPyramid(channels)
        # with a bias, as official weights have one before the norm
        self.fuse = Conv2d(channels, channels, 3, padding=1, norm=get_norm(norm, channels))
        self.descend = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=1 if level == 0 else 2, padding=1)
            for level in range(num_levels)
        )
        self.attend = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for _ in range(num_levels))

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Map L levels (B, C, H_l, W_l), fine to coarse, to logits (B, 1, H_l, W_l)."""
        size = levels[0].shape[-2:]
        stacked = torch.cat([levels[0], *(_resize(x, size) for x in levels[1:])], dim=1)
        x = F.relu(self.fuse(self.context(self.reduce(stacked))))
        # The recursion carries no activation, as in the released program: each level's map comes
        # from the one before it, strided.
        logits = []
        for descend, attend in zip(self.descend, self.attend):
            x = descend(x)
            logits.append(attend(x))
        return logits


@BACKBONE_REGISTRY.register()
class SSPNet(FPN):
    """Detectron2's FPN with context attention, scale enhancement and scale selection.

    Source: SSPNet (arXiv 2107.01548). A level is enhanced where its attention is high, before and
    after the top-down path, and takes from the coarser one only where both attend.

    Args:
        bottom_up: backbone that computes the features.
        in_features: names of its features, fine to coarse, strides doubling.
        out_channels: C of every level, a multiple of 4 (of 32 with "GN").
        attention_norm: see `ContextAttention`; "BN" to load official weights.
        top_block: further coarse levels, see Detectron2's FPN.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        *,
        out_channels: int = 256,
        attention_norm: str = "GN",
        top_block: nn.Module | None = None,
    ) -> None:
        super().__init__(bottom_up, list(in_features), out_channels, top_block=top_block)
        self.context_attention = ContextAttention(out_channels, len(in_features), attention_norm)
        # FPN initialises its own layers otherwise; the released neck uses Xavier everywhere.
        own = [*self.lateral_convs, *self.output_convs, *self.context_attention.modules()]
        for module in own:
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the pyramid.

        Args:
            x: (B, 3, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            ``p2``, ``p3``, ... (B, C, H_l, W_l), and in training ``attention_p2``, ... for the
            levels that come from the backbone: attention logits (B, 1, H_l, W_l).
        """

        features = self.bottom_up(x)
        # FPN keeps its convolutions from coarse to fine
        laterals = [
            conv(features[name]) for conv, name in zip(self.lateral_convs[::-1], self.in_features)
        ]

        logits = self.context_attention(laterals)
        attention = [one.sigmoid() for one in logits]
        # First scale enhancement; the 1 keeps what the attention does not see.
        levels = [(1 + a) * lateral for a, lateral in zip(attention, laterals)]
        for fine in range(len(levels) - 2, -1, -1):
            size = levels[fine].shape[-2:]
            # Scale selection: a coarse feature passes only where both levels attend to an object.
            gate = attention[fine] * _resize(attention[fine + 1], size)
            levels[fine] = levels[fine] + gate * _resize(levels[fine + 1], size)

        # Second scale enhancement, after the top-down path.
        results = [
            (1 + a) * conv(level)
            for a, conv, level in zip(attention, self.output_convs[::-1], levels)
        ]
        if self.top_block is not None:
            name = self.top_block.in_feature
            source = features[name] if name in features else results[self._out_features.index(name)]
            results.extend(self.top_block(source))

        outputs = dict(zip(self._out_features, results))
        # Inference needs only the pyramid; the logits serve the loss.
        if self.training:
            outputs.update(
                (ATTENTION_PREFIX + name, one) for name, one in zip(self._out_features, logits)
            )
        return outputs


def _resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(x, size=tuple(size), mode="nearest")
