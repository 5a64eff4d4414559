"""A plain vision transformer that is an encoder of chosen tokens and a detector's backbone.

The same weights serve both: pre-training encodes sequences of kept tokens (`encode`), a detector
needs a dense map (`forward`), with windows and relative positions where the map is large. Absolute
positions are fixed sines and cosines, made anew for every grid, so that no size is special.

Shapes: B images, N tokens of h x w (row by row), K kept tokens, D channels, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.utils import PatchEmbed
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rsd2.layers import (
    Block,
    cached_sincos_positions_2d,
    init_transformer_weights,
    sincos_positions_2d,
)
from rsd2.layers.transformer_block import NORM_EPSILON

POSITION_MODES = ("extrapolate", "interpolate")


@BACKBONE_REGISTRY.register()
class VisionTransformer(Backbone):
    """A plain vision transformer without class token.

    Source: I-JEPA (arXiv 2301.08243) for the encoder, ViTDet (arXiv 2203.16527) for the backbone.
    Parameters have the names that I-JEPA, MAE, timm and ViTDet share.

    Args:
        patch_size: pixels of a token's side, which is the stride of the map.
        in_channels: channels of the image.
        embed_dim: D, divisible by 4 and by ``num_heads``.
        depth: number of blocks.
        num_heads: H.
        mlp_ratio: see `Block`.
        drop_path_rate: rate of the last block; grows linearly from 0 in the first.
        window_size: side of the attention windows of a dense map, in tokens; 0 for none.
        global_blocks: indices of the blocks that attend globally in spite of ``window_size``.
        use_relative_positions: add relative positions to the attention of dense maps.
        relative_position_size: (h, w) tokens that the tables of global blocks are made for; maps
            of other sizes resample them. Only used with relative positions.
        final_norm: normalise the result, of sequences and of maps, as I-JEPA does.
        position_grid: (h, w) tokens of the images of the pre-training; None: that of the input.
        position_mode: positions of a grid other than ``position_grid``: "extrapolate" goes on
            counting tokens, "interpolate" spreads the coordinates of ``position_grid`` over it.
        learned_positions: the table is a parameter ``pos_embed`` of ``position_grid``, resized
            bicubically for other grids, as the weights of ViTDet and of classifiers need it.
        checkpoint_activations: compute the blocks again in the backward pass, to save memory.
        out_feature: name of the map.
        freeze_at: 0 trains everything; n >= 1 freezes the patch embedding, positions and the first
            n - 1 blocks, which then drop nothing; ``depth + 1`` freezes the final norm too.

    Raises:
        ValueError: an argument is out of its range, or another one is needed with it.
    """

    def __init__(
        self,
        *,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        window_size: int = 0,
        global_blocks: Sequence[int] = (),
        use_relative_positions: bool = False,
        relative_position_size: Sequence[int] | None = None,
        final_norm: bool = True,
        position_grid: Sequence[int] | None = None,
        position_mode: str = "extrapolate",
        learned_positions: bool = False,
        checkpoint_activations: bool = False,
        out_feature: str = "last_feat",
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        _check_indices(depth, global_blocks, freeze_at)
        _check_positions(position_mode, learned_positions, position_grid)

        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.position_grid = None if position_grid is None else tuple(position_grid)
        self.position_mode = position_mode
        self.checkpoint_activations = checkpoint_activations

        size = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(size, size, in_chans=in_channels, embed_dim=embed_dim)
        self.pos_embed = None
        if learned_positions:
            assert self.position_grid is not None, "_check_positions refuses a table without a grid"
            table = sincos_positions_2d(self.position_grid, embed_dim)
            self.pos_embed = nn.Parameter(table[None])

        self.blocks = nn.ModuleList()
        for index in range(depth):
            # Inside a window distances are short, so its tables are smaller than a global block's.
            window = 0 if index in set(global_blocks) else window_size
            relative_grid = (window, window) if window else relative_position_size
            if use_relative_positions and relative_grid is None:
                raise ValueError("relative positions of global blocks need relative_position_size")
            block = Block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path_rate * index / max(depth - 1, 1),
                window_size=window,
                relative_grid=relative_grid if use_relative_positions else None,
            )
            self.blocks.append(block)

        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPSILON) if final_norm else None
        self.apply(init_transformer_weights)

        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}
        self._freeze(freeze_at)

    @property
    def size_divisibility(self) -> int:
        """Number that must divide the sides of images: the patch size."""
        return self.patch_size

    def encode(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Encode chosen tokens of every image, with attention among all of them.

        Windows and relative positions, which need a dense map, play no part here.

        Args:
            images: (B, 3, height, width) normalised; sides are multiples of the patch size.
            keep: (B, K) int64 indices of the tokens to keep, in any order; None keeps all N.

        Returns:
            (B, K or N, D), normalised if there is a final norm.

        Raises:
            ValueError: a side is not a multiple of the patch size.
        """
        x, _ = self._embed(images)
        if keep is not None:
            # Positions are in the tokens already, so their order does not matter.
            x = x.gather(1, keep[..., None].expand(-1, -1, self.embed_dim))
        return self._transform(x, None)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the dense feature map.

        Args:
            images: (B, 3, height, width) normalised; sides are multiples of the patch size.

        Returns:
            ``{out_feature: (B, D, height / patch_size, width / patch_size)}``.

        Raises:
            ValueError: a side is not a multiple of the patch size.
        """
        x, grid = self._embed(images)
        x = self._transform(x, grid).transpose(1, 2).unflatten(2, grid)
        return {self._out_features[0]: x}

    def positions(self, grid: Sequence[int]) -> torch.Tensor:
        """Compute the absolute positions of a grid.

        Args:
            grid: (h, w) tokens.

        Returns:
            (1, h * w, D), on the device and of the type of the parameters.
        """
        height, width = grid
        grid, weight = (height, width), self.patch_embed.proj.weight
        own = self.position_grid or grid
        if self.pos_embed is None:
            scale = (1.0, 1.0)
            if self.position_mode == "interpolate":
                scale = (own[0] / grid[0], own[1] / grid[1])
            return cached_sincos_positions_2d(
                grid, self.embed_dim, scale, weight.device, weight.dtype
            )[None]

        if own == grid:
            return self.pos_embed
        table = self.pos_embed.unflatten(1, own).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)

    def _embed(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Tokens (B, N, D) with their positions, and the grid."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images of {height} x {width} pixels do not divide into patches of "
                f"{self.patch_size}; pad or crop them to a multiple"
            )

        x = self.patch_embed(images)
        grid = (x.shape[1], x.shape[2])
        return x.flatten(1, 2) + self.positions(grid), grid

    def _transform(self, x: torch.Tensor, grid: tuple[int, int] | None) -> torch.Tensor:
        for block in self.blocks:
            # Without gradients there is nothing to save.
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        return x if self.norm is None else self.norm(x)

    def _freeze(self, freeze_at: int) -> None:
        frozen = [self.patch_embed, *self.blocks[: max(freeze_at - 1, 0)]] if freeze_at else []
        if freeze_at > len(self.blocks) and self.norm is not None:
            frozen.append(self.norm)

        for module in frozen:
            module.requires_grad_(False)
            if isinstance(module, Block):
                # A frozen block must give the same features in every step.
                module.drop_path.p = 0.0

        if freeze_at and self.pos_embed is not None:
            self.pos_embed.requires_grad_(False)


def _check_indices(depth: int, global_blocks: Sequence[int], freeze_at: int) -> None:
    if any(not 0 <= index < depth for index in global_blocks):
        raise ValueError(f"global_blocks must be in 0 to {depth - 1}, got {list(global_blocks)}")
    if not 0 <= freeze_at <= depth + 1:
        raise ValueError(f"freeze_at must be in 0 to {depth + 1}, got {freeze_at}")


def _check_positions(mode: str, learned: bool, grid: Sequence[int] | None) -> None:
    if mode not in POSITION_MODES:
        raise ValueError(f"position_mode must be one of {POSITION_MODES}, got {mode!r}")
    if (learned or mode == "interpolate") and grid is None:
        raise ValueError("interpolated and learned positions need a position_grid")
