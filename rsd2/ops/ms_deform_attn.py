"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, section 4.1, eq. 3).

Contract: every query and head takes a weighted sum of values sampled at its own points of each
level of a feature pyramid. Sampling is bilinear with ``align_corners=False`` (location 0 and 1 are
the outer edges of the map, pixel centres lie at half pixels) and zeros outside; a location that is
not finite lies outside. Differentiable once in the values, the locations and the weights.
Half-precision inputs are computed in float32; the result has the dtype of the values. Under
autocast, nothing is lowered. On a CPU, result and gradients do not depend on the number of threads.

The public function checks shapes and calls ``torch.ops.rsd2.ms_deform_attn``: a compiled kernel
where there is one, else the reference of this file.

Method of the reference: a loop over the levels that accumulates, for a few images' heads at a time,
so that the samples of one level stay in the cache, with points in front of queries, so that sums
run over contiguous planes.

Shapes: B images, S = sum of h * w over the levels, H heads, C channels of a head, Q queries,
L levels, P points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .extension import register_operator

# Sampled numbers at a time in the reference: 4 MB of float32.
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
            else, NaN too, is outside and samples zeros next to the border.
        attention_weights: (B, Q, H, L, P) floating, usually summing to 1 over L and P.

    Returns:
        (B, Q, H * C), in the dtype of ``value``; heads one after another.

    Raises:
        ValueError: if shapes, devices or dtypes do not fit each other.
    """
    shapes = _as_pairs(spatial_shapes)
    _check(value, shapes, sampling_locations, attention_weights)
    flat = [number for pair in shapes for number in pair]
    return torch.ops.rsd2.ms_deform_attn(value, flat, sampling_locations, attention_weights)


def reference_ms_deform_attn(
    value: Tensor, spatial_shapes: Sequence[int], locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute :func:`ms_deform_attn` in plain PyTorch.

    Args:
        value: (B, S, H, C), as in :func:`ms_deform_attn`.
        spatial_shapes: 2 L numbers: height, width, height, ...
        locations: (B, Q, H, L, P, 2), as in :func:`ms_deform_attn`.
        weights: (B, Q, H, L, P), as in :func:`ms_deform_attn`.

    Returns:
        (B, Q, H * C), in the dtype of ``value``.
    """
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    if value.numel() == 0 or weights.numel() == 0:
        return value.new_zeros(batch, queries, heads * channels)

    parts = []
    with torch.autocast(value.device.type, enabled=False):
        for maps, grids, shares in _portions(value, locations, weights):
            # Eq. 3 sums over the levels, so their samples are never stored together.
            total = maps.new_zeros(len(maps), channels, queries)
            for level, grid, share in zip(_levels(maps, spatial_shapes), grids, shares):
                total += (_sample(level, grid) * share.unsqueeze(1)).sum(2)
            parts.append(total)

    total = torch.cat(parts).reshape(batch, heads * channels, queries)
    return total.transpose(1, 2).to(value.dtype).contiguous()


def reference_ms_deform_attn_backward(
    grad: Tensor, value: Tensor, spatial_shapes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of :func:`ms_deform_attn` in plain PyTorch.

    Args:
        grad: (B, Q, H * C), gradient of the result.
        value: (B, S, H, C), as in the forward call.
        spatial_shapes: 2 L numbers: height, width, height, ...
        locations: (B, Q, H, L, P, 2), as in the forward call.
        weights: (B, Q, H, L, P), as in the forward call.

    Returns:
        Gradients in value, locations and weights, each shaped and typed like its input.
    """
    batch, length, heads, channels = value.shape
    inputs = (value, locations, weights)
    if value.numel() == 0 or weights.numel() == 0:
        contiguous = torch.contiguous_format
        nothing = [torch.zeros_like(tensor, memory_format=contiguous) for tensor in inputs]
        return nothing[0], nothing[1], nothing[2]

    dtype = torch.promote_types(value.dtype, torch.float32)
    rows = grad.to(dtype).unflatten(2, (heads, channels)).permute(0, 2, 3, 1).flatten(0, 1)

    found = []
    with torch.autocast(value.device.type, enabled=False):
        start = 0
        for maps, grids, shares in _portions(*inputs):
            rows_here = rows[start : start + len(maps)].unsqueeze(2)  # (n, C, 1, Q)
            start += len(maps)
            levels = zip(_levels(maps, spatial_shapes), grids, shares)
            pieces = [_level_gradients(rows_here, *level) for level in levels]
            of_maps, of_grids, of_shares = zip(*pieces)
            found.append((torch.cat(of_maps, 2), torch.stack(of_grids), torch.stack(of_shares)))

    # Back from (level, image and head, ...) to the layouts of the inputs.
    of_maps, of_grids, of_shares = zip(*found)
    in_value = torch.cat(of_maps).view(batch, heads, channels, length).permute(0, 3, 1, 2)
    in_locations = torch.cat(of_grids, 1).unflatten(1, (batch, heads)).permute(1, 4, 2, 0, 3, 5)
    in_weights = torch.cat(of_shares, 1).unflatten(1, (batch, heads)).permute(1, 4, 2, 0, 3)

    gradients = (in_value, 2 * in_locations, in_weights)  # a grid is twice the location
    return tuple(x.to(like.dtype).contiguous() for x, like in zip(gradients, inputs))


def _portions(
    value: Tensor, locations: Tensor, weights: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Maps (n, C, S), grids (L, n, P, Q, 2) in [-1, 1] and weights (L, n, P, Q) of some heads."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    # Level in front, then image and head as one batch, then points, then queries.
    maps = value.to(dtype).permute(0, 2, 3, 1).flatten(0, 1)
    grids = (2 * locations.to(dtype) - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)

    # What is not finite or far away would not fit an integer; 3 is outside of every map.
    grids = grids.nan_to_num(nan=3.0).clamp(-3.0, 3.0)
    weights = weights.to(dtype).permute(3, 0, 2, 4, 1).flatten(1, 2)

    step = max(1, SAMPLE_BUDGET // max(1, maps.shape[1] * weights[0, 0].numel()))
    yield from zip(maps.split(step), grids.split(step, dim=1), weights.split(step, dim=1))


def _levels(maps: Tensor, spatial_shapes: Sequence[int]) -> list[Tensor]:
    """Maps (n, C, height, width) of each level out of (n, C, S)."""
    shapes = list(zip(spatial_shapes[::2], spatial_shapes[1::2]))
    parts = maps.split([height * width for height, width in shapes], dim=2)
    return [part.unflatten(2, shape) for part, shape in zip(parts, shapes)]


def _sample(level: Tensor, grid: Tensor) -> Tensor:
    """(n, C, P, Q) samples of a level (n, C, height, width) at (n, P, Q, 2)."""
    return F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _level_gradients(
    grad: Tensor, level: Tensor, grid: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in the map (n, C, h * w), the grid and the weights of a level; grad (n, C, 1, Q).

    Written out, because nothing is recorded for autograd below the dispatcher.
    """
    of_share = (_sample(level, grid) * grad).sum(1)
    of_samples = grad * share.unsqueeze(1)
    # 0 and 0 are the codes of bilinear and zeros; the list asks for both gradients.
    of_level, of_grid = torch.ops.aten.grid_sampler_2d_backward(
        of_samples, level, grid, 0, 0, False, [True, True]
    )
    return of_level.flatten(2), of_grid, of_share


def _as_pairs(spatial_shapes: Tensor | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    # Reading a tensor waits for the GPU; the models pass pairs.
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    shapes = [(height, width) for height, width in spatial_shapes]
    if not shapes or min(min(pair) for pair in shapes) < 1:
        raise ValueError(f"every level needs a height and width >= 1, got {shapes}")
    return shapes


def _check(
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

    for name, tensor in (("sampling_locations", locations), ("attention_weights", weights)):
        if tensor.device != value.device:
            raise ValueError(f"{name} are on {tensor.device}, but value is on {value.device}")

    for tensor in (value, locations, weights):
        if not tensor.is_floating_point():
            raise ValueError(f"value, locations and weights must be floating, got {tensor.dtype}")


def _fake(value: Tensor, spatial_shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, locations.shape[1], heads * channels)


def _fake_backward(
    grad: Tensor, value: Tensor, spatial_shapes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    value, ctx.spatial_shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    in_value, in_locations, in_weights = torch.ops.rsd2.ms_deform_attn_backward(
        grad, value, ctx.spatial_shapes, locations, weights
    )
    return in_value, None, in_locations, in_weights


# Kernels take half precision and sum in float32, so autocast has nothing to change.
register_operator(
    "ms_deform_attn_backward", reference_ms_deform_attn_backward, _fake_backward, autocast=None
)
register_operator(
    "ms_deform_attn",
    reference_ms_deform_attn,
    _fake,
    backward=_backward,
    setup_context=_setup_context,
    autocast=None,
)
