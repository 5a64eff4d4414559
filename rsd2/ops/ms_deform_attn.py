"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, section 4.1, eq. 3).

Contract: every query and head takes a weighted sum of values sampled at its own points of each
level of a feature pyramid. Sampling is bilinear with ``align_corners=False`` (location 0 and 1 are
the outer edges of the map, pixel centres lie at half pixels) and zeros outside. Differentiable in
the values, the locations and the weights. Half-precision inputs are computed in float32; the result
has the dtype of the values. Under autocast, nothing is lowered.

Method: a loop over the levels that accumulates, for a few images' heads at a time, so that the
samples of one level stay in the cache, with points in front of queries, so that sums run over
contiguous planes.

Shapes: B images, S = sum of h * w over the levels, H heads, C channels of a head, Q queries,
L levels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Sampled numbers at a time: 4 MB of float32.
SAMPLE_BUDGET = 1 << 20


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sums of bilinear samples of a feature pyramid, per query and head.

    Args:
        value: (B, S, H, C) floating; levels one after another, each in row-major order.
        spatial_shapes: (L, 2) int64 or L pairs: height and width of each level, >= 1. Pairs avoid
            a synchronisation with a GPU.
        sampling_locations: (B, Q, H, L, P, 2) floating xy; [0, 1] covers the map, anything
            else is outside and samples zeros next to the border.
        attention_weights: (B, Q, H, L, P) floating, usually summing to 1 over L and P.

    Returns:
        (B, Q, H * C), in the dtype of ``value``; heads one after another.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    shapes = _as_pairs(spatial_shapes)
    _check_shapes(value, shapes, sampling_locations, attention_weights)
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    dtype = torch.promote_types(value.dtype, torch.float32)
    if queries == 0 or value.numel() == 0:
        return value.new_zeros(batch, queries, heads * channels) + 0 * value.sum()
    with torch.autocast(value.device.type, enabled=False):
        # Level in front, then image and head as one batch, then points, then queries.
        maps = value.to(dtype).permute(0, 2, 3, 1).flatten(0, 1)
        grids = (2 * sampling_locations.to(dtype) - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)
        weights = attention_weights.to(dtype).permute(3, 0, 2, 4, 1).flatten(1, 2)
        step = max(1, SAMPLE_BUDGET // max(1, channels * weights[0, 0].numel()))
        parts = zip(maps.split(step), grids.split(step, dim=1), weights.split(step, dim=1))
        total = torch.cat([_sum_over_levels(*part, shapes) for part in parts])
    return total.reshape(batch, heads * channels, queries).transpose(1, 2).to(value.dtype)


def _sum_over_levels(
    maps: Tensor, grids: Tensor, weights: Tensor, shapes: list[tuple[int, int]]
) -> Tensor:
    """(n, C, Q) from maps (n, C, S), grids (L, n, P, Q, 2) in [-1, 1], weights (L, n, P, Q)."""
    levels = maps.split([height * width for height, width in shapes], dim=2)
    total = None
    for level, grid, weight, shape in zip(levels, grids, weights, shapes):
        samples = F.grid_sample(
            level.unflatten(2, shape),
            grid,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (n, C, P, Q)
        part = (samples * weight.unsqueeze(1)).sum(2)
        total = part if total is None else total + part
    return total


def _as_pairs(spatial_shapes: Tensor | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    shapes = [(int(height), int(width)) for height, width in spatial_shapes]
    if not shapes or min(min(pair) for pair in shapes) < 1:
        raise ValueError(f"every level needs a height and width >= 1, got {shapes}")
    return shapes


def _check_shapes(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> None:
    if value.dim() != 4:
        raise ValueError(f"value must be (B, S, H, C), got {tuple(value.shape)}")
    batch, length, heads, _ = value.shape
    expected = sum(height * width for height, width in shapes)
    if length != expected:
        raise ValueError(f"value has {length} positions, but the levels {shapes} have {expected}")
    if locations.dim() != 6 or locations.shape[-1] != 2:
        raise ValueError(
            f"sampling_locations must be (B, Q, H, L, P, 2), got {tuple(locations.shape)}"
        )
    fitting = (batch, locations.shape[1], heads, len(shapes), locations.shape[4])
    if tuple(locations.shape[:5]) != fitting or tuple(weights.shape) != fitting:
        raise ValueError(
            f"value and levels ask for (B, Q, H, L, P) = {fitting}, but sampling_locations is "
            f"{tuple(locations.shape)} and attention_weights {tuple(weights.shape)}"
        )
