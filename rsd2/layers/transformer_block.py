"""Self-attention and blocks of plain vision transformers.

One module works on sequences of any tokens and on dense maps: the maps alone can have attention
windows and relative positions.

Shapes: B images, N tokens, h x w of a dense map (row by row), D channels, H heads, C = D / H.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from detectron2.modeling.backbone.utils import (
    PatchEmbed,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

NORM_EPSILON = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention, with decomposed relative positions if wanted.

    Source: ViTDet (arXiv 2203.16527), section 3; relative positions of MViTv2 (arXiv 2112.01526),
    equation 4: the logits get q . R_h[row distance] + q . R_w[column distance].

    Args:
        dim: D, divisible by ``num_heads``.
        num_heads: H.
        relative_grid: (h, w) for which the tables of relative positions are made, which start at
            zero; None for none.
    """

    def __init__(
        self, dim: int, num_heads: int, *, relative_grid: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

        self.rel_pos_h = self.rel_pos_w = None
        if relative_grid is not None:
            height, width = relative_grid
            head_dim = dim // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, head_dim))

    def forward(self, x: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Attend among the tokens of every sequence.

        Args:
            x: (B, N, D).
            grid: (h, w) with h w = N if the tokens are a dense map; None for any sequence, which
                has no relative positions.

        Returns:
            (B, N, D).
        """
        batch, length, dim = x.shape
        shape = (batch, length, 3, self.num_heads, dim // self.num_heads)
        qkv = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)

        bias = None
        if grid is not None and self.rel_pos_h is not None:
            bias = self._relative_logits(q, grid)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))

    def _relative_logits(self, q: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Share of the logits that relative positions add, (B, H, N, N)."""
        height, width = grid
        q = q.unflatten(2, grid)
        # Under autocast the tables are float32 while the queries are not.
        rows = get_rel_pos(height, height, self.rel_pos_h).to(q.dtype)
        columns = get_rel_pos(width, width, self.rel_pos_w).to(q.dtype)

        rows = torch.einsum("bnhwc,hkc->bnhwk", q, rows)
        columns = torch.einsum("bnhwc,wkc->bnhwk", q, columns)
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class Block(nn.Module):
    """Pre-norm transformer block: attention and a two-layer MLP with GELU, both residual.

    Source: ViT (arXiv 2010.11929), equations 2 and 3.

    Args:
        dim: D.
        num_heads: H.
        mlp_ratio: hidden channels of the MLP per channel.
        drop_path: probability, in [0, 1), of skipping a residual branch for an image in training.
        window_size: side of the windows that a dense map is attended in; 0 for global attention.
        relative_grid: see `Attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        window_size: int = 0,
        relative_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = Attention(dim, num_heads, relative_grid=relative_grid)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        layers = {"fc1": nn.Linear(dim, hidden), "act": nn.GELU(), "fc2": nn.Linear(hidden, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.window_size = window_size

    def forward(self, x: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Attend and transform the tokens, both with a residual connection.

        Args:
            x: (B, N, D).
            grid: (h, w) of a dense map, which is attended in windows if the block has them; None
                for a sequence of any tokens, always attended as a whole.

        Returns:
            (B, N, D).
        """
        attended = self.norm1(x)
        if grid is None or not self.window_size:
            attended = self.attn(attended, grid)
        else:
            attended = self._attend_in_windows(attended, grid)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend_in_windows(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Attend in windows; the map is filled up by zeros, which are attended to as in ViTDet."""
        # Relative positions belong to a window here, not to the whole map.
        size = self.window_size
        windows, padded = window_partition(x.unflatten(1, grid), size)
        windows = self.attn(windows.flatten(1, 2), (size, size)).unflatten(1, (size, size))
        return window_unpartition(windows, size, padded, grid).flatten(1, 2)


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise one module, for ``nn.Module.apply``.

    Source: MAE (arXiv 2111.06377), appendix A.1, for the patch projection, a Xavier-uniform matrix;
    I-JEPA for the rest: linear layers from a normal distribution of deviation 0.02 cut at 2.

    Args:
        module: a linear layer, the projection of patches, or anything else, which is left alone.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, PatchEmbed):
        nn.init.xavier_uniform_(module.proj.weight.flatten(1))
        module = module.proj

    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
