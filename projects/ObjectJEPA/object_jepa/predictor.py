"""The predictor: a narrow transformer from visible to hidden tokens.

Shapes: B images, N = h w patches, K tokens of the context, P predicted tokens, D channels of the
encoder, C channels of the predictor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rsd2.layers import Block, cached_sincos_positions_2d, init_transformer_weights
from rsd2.layers.transformer_block import NORM_EPSILON


class Predictor(nn.Module):
    """Predict tokens at given places from the tokens of the context.

    Source: I-JEPA (arXiv 2301.08243), section 3. All predicted tokens of an image are one
    sequence with its context. (The official program repeats the context for every target block.)

    Args:
        in_dim: D, channels of the encoder.
        embed_dim: C, channels of the predictor, divisible by 4 and by ``num_heads``.
        depth: number of blocks.
        num_heads: number of attention heads.
        out_dim: channels of a prediction; None for D.
        mask_tokens: whether to append a token for every prediction; False reads predictions off the
            context's own tokens, which must then be those of all patches.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        embed_dim: int = 384,
        depth: int = 6,
        num_heads: int = 12,
        out_dim: int | None = None,
        mask_tokens: bool = True,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.embed = nn.Linear(in_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if mask_tokens else None
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.proj = nn.Linear(embed_dim, out_dim or in_dim)
        self.apply(init_transformer_weights)
        if mask_tokens:
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self,
        context: torch.Tensor,
        keep: torch.Tensor | None,
        predicted: torch.Tensor,
        grid: Sequence[int],
    ) -> torch.Tensor:
        """Predict tokens.

        Args:
            context: (B, K, D), without mask tokens (B, N, D).
            keep: (B, K) int64 places of the context; None for all, in order.
            predicted: (B, P) int64 places.
            grid: (h, w) patches.

        Returns:
            (B, P, D), or as many channels as ``out_dim``.
        """
        x = self.embed(context)
        weight = self.proj.weight
        table = cached_sincos_positions_2d(
            tuple(grid), self.embed_dim, (1.0, 1.0), weight.device, weight.dtype
        )
        # Positions are fixed sines, so they can be computed for a grid of any size.
        x = x + (table if keep is None else table[keep])
        if self.mask_token is not None:
            x = torch.cat([x, (self.mask_token + table[predicted]).to(x.dtype)], dim=1)

        for block in self.blocks:
            x = block(x)

        if self.mask_token is not None:
            x = x[:, -predicted.shape[1] :]
        else:
            x = x.gather(1, predicted[..., None].expand(-1, -1, self.embed_dim))
        return self.proj(self.norm(x))
