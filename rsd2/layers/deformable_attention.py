"""Multi-scale deformable attention around points and around rotated boxes.

Shapes: B images, Q queries, S tokens of all levels together, C channels, M heads, L levels,
P points per head and level. Reference coordinates are (x, y), normalised by the padded image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from rsd2.ops import ms_deform_attn

from .precision import at_least_float32


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention around reference points.

    Source: Deformable DETR (arXiv 2010.04159), section 4.1, equation 3.

    Args:
        embed_dim: C, divisible by ``num_heads``.
        num_heads: M.
        num_levels: L.
        num_points: P.
    """

    def __init__(
        self, embed_dim: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")

        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        total_points = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dim, total_points * 2)
        self.attention_weights = nn.Linear(embed_dim, total_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)

        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.zeros_(self.value_proj.bias)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)
        self.reset_sampling()

    def reset_sampling(self, random_weights: bool = False) -> None:
        """Start from a star of points: one direction per head, growing with the point's index.

        Args:
            random_weights: fill the weights of offsets and attention with xavier-uniform noise
                instead of zeros (what the official decoder ends up with: methods of ARS-DETR
                re-initialise its matrices after the star was set).
        """
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        # The largest component is 1, so the star's points lie on squares around the reference.
        directions = directions / directions.abs().max(dim=-1, keepdim=True).values
        steps = torch.arange(1, self.num_points + 1, dtype=directions.dtype)

        star = directions[:, None, None] * steps[:, None]
        star = star.expand(-1, self.num_levels, -1, -1)

        with torch.no_grad():
            self.sampling_offsets.bias.copy_(star.reshape(-1))
            nn.init.zeros_(self.attention_weights.bias)
            for layer in (self.sampling_offsets, self.attention_weights):
                if random_weights:
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.zeros_(layer.weight)

    def raw_offsets(self, query: torch.Tensor) -> torch.Tensor:
        """Predict the offsets (B, Q, M, L, P, 2) of the queries (B, Q, C), in the layer's unit."""
        shape = (self.num_heads, self.num_levels, self.num_points, 2)
        return at_least_float32(self.sampling_offsets(query)).unflatten(-1, shape)

    def attend(
        self,
        query: torch.Tensor,
        value: torch.Tensor,
        locations: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Sample the value maps at the locations and mix the samples.

        Args:
            query: (B, Q, C).
            value: (B, S, C), tokens of level 0, then level 1, ...; row-major inside a level.
            locations: (B, Q, M, L, P, 2) in the padded image, [0, 1] inside.
            spatial_shapes: (height, width) of every level; their products sum to S.
            padding_mask: (B, S) bool, True where a token is padding and must read as zero.

        Returns:
            (B, Q, C).
        """
        values = self.value_proj(value)
        if padding_mask is not None:
            values = values.masked_fill(padding_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))

        # The softmax runs over the points of all levels together, equation 3.
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        weights = at_least_float32(weights).softmax(dim=-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        # Locations stay in float32: bfloat16 would move them by half a token in a map of 128.
        return self.output_proj(ms_deform_attn(values, spatial_shapes, locations, weights))

    def forward(
        self,
        query: torch.Tensor,
        value: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend around points; offsets are in units of a level's token.

        Args:
            query: (B, Q, C), positional encoding included.
            value: (B, S, C).
            reference_points: (B or 1, Q, 2), normalised by the padded image.
            spatial_shapes: (height, width) of every level.
            padding_mask: (B, S) bool, True = padding.

        Returns:
            (B, Q, C), without residual.
        """
        offsets = self.raw_offsets(query)

        # An offset of 1 is one token of its level, whatever the level's size.
        sizes = offsets.new_tensor([[w, h] for h, w in spatial_shapes])
        locations = reference_points[:, :, None, None, None] + offsets / sizes[:, None]
        return self.attend(query, value, locations, spatial_shapes, padding_mask)


def rotated_sampling_locations(
    offsets: torch.Tensor, boxes: torch.Tensor, angles: torch.Tensor
) -> torch.Tensor:
    """Place sampling points inside rotated boxes.

    Source: ARS-DETR (arXiv 2303.04989), rotated deformable attention: an offset of P (the number
    of points) reaches the middle of a side, and the pattern turns with the box.

    Args:
        offsets: (B, Q, M, L, P, 2) raw offsets.
        boxes: (B, Q, 4) cx, cy, w, h, any unit that is the same on both axes.
        angles: (B, Q) degrees, counter-clockwise on screen.

    Returns:
        (B, Q, M, L, P, 2) points (x, y) in the unit of the boxes.
    """
    num_points = offsets.shape[-2]
    local = offsets / num_points * (boxes[..., 2:] * 0.5)[:, :, None, None, None]

    radians = torch.deg2rad(angles)[:, :, None, None, None]
    cos, sin = radians.cos(), radians.sin()
    # Angles count counter-clockwise on a screen whose y points down.
    x = local[..., 0] * cos + local[..., 1] * sin
    y = local[..., 1] * cos - local[..., 0] * sin
    return boxes[:, :, None, None, None, :2] + torch.stack([x, y], dim=-1)


class RotatedDeformableAttention(DeformableAttention):
    """Multi-scale deformable attention whose points live in a rotated reference box.

    Source: ARS-DETR (arXiv 2303.04989), rotated deformable attention.
    """

    # Attends around boxes where the base class takes points, so neither can stand for the other.
    def forward(  # type: ignore[override]
        self,
        query: torch.Tensor,
        value: torch.Tensor,
        boxes: torch.Tensor,
        angles: torch.Tensor,
        box_to_image: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend inside rotated boxes.

        Args:
            query: (B, Q, C), positional encoding included.
            value: (B, S, C).
            boxes: (B, Q, 4) cx, cy, w, h in normalised box coordinates.
            angles: (B, Q) degrees, counter-clockwise on screen.
            box_to_image: (B, 2) factors (x, y) from box coordinates to the padded image's [0, 1].
            spatial_shapes: (height, width) of every level.
            padding_mask: (B, S) bool, True = padding.

        Returns:
            (B, Q, C), without residual.
        """
        locations = rotated_sampling_locations(self.raw_offsets(query), boxes, angles)
        # Rotation needs the same unit on both axes; only then the points are stretched to the
        # image.
        locations = locations * box_to_image[:, None, None, None, None]
        return self.attend(query, value, locations, spatial_shapes, padding_mask)
