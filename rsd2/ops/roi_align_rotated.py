"""RoIAlign for rotated boxes, with the semantics of Detectron2's ROIAlignRotated.

Contract: a region is cut into pooled_height x pooled_width bins in its own frame; each bin is the
mean of bilinear samples on a regular grid inside it. Coordinates are continuous: pixel (i, j) of
the feature map covers [j, j + 1] x [i, i + 1], so its centre is half a pixel from its corner. A
sample more than one pixel outside the pixel centres is 0, one nearer is moved onto them.
Differentiable once in the features, not in the regions. Half precision is computed in float32; the
result has the dtype of the features, and autocast lowers nothing. On a CPU, result and gradients do
not depend on the number of threads.

The public functions check shapes and call ``torch.ops.rsd2.roi_align_rotated``: a compiled kernel
where there is one, else the reference of this file. What only values tell is checked there.

Method of the reference: a sample is four rows of the feature table with four weights, so a bin is
a weighted sum of rows (`embedding_bag`), and the gradient adds weighted rows back. Regions are
grouped by their sampling grid and taken in portions, so that the tables stay under ``VALUE_BUDGET``
numbers, one row of the samples of one region at the least.

Shapes: B images, C channels, K regions, T = pooled_height * pooled_width bins, G samples of a bin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .extension import register_operator
from .trigonometry import sincos_degrees

# Numbers at a time in the largest table of the backward pass: 32 MB of float32.
VALUE_BUDGET = 1 << 23
# Samples of one region; only a diverged box would need more.
MAX_REGION_SAMPLES = 1 << 28


def roi_align_rotated(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Tensor:
    """Pool rotated regions of feature maps into grids of fixed size.

    Args:
        features: (B, C, H, W) floating.
        rois: (K, 6) (image index, cx, cy, w, h, a): pixels of the image, degrees counter-clockwise
            on screen; sides >= 0, all finite.
        output_size: (pooled_height, pooled_width), or one number for both; >= 1.
        spatial_scale: size of the feature map over that of the image, > 0.
        sampling_ratio: samples per bin along each side; 0 or less takes
            ceil(side on the map / bins) for every region.

    Returns:
        (K, C, pooled_height, pooled_width), in the dtype of ``features``. Row 0 of the grid lies
        at the box's own top, as turned by its angle.

    Raises:
        ValueError: if a shape, a dtype or an argument is wrong; if an image index or a side is
            wrong, a number not finite, or a region in need of more than 2^28 samples. The CUDA
            kernel, which must not wait for the values, pools such a region to NaN instead.
    """
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    _check(features, rois, size, spatial_scale)
    return torch.ops.rsd2.roi_align_rotated(
        features, rois.detach(), size, spatial_scale, sampling_ratio
    )


def roi_align_rotated_backward(
    grad: Tensor,
    rois: Tensor,
    features_shape: tuple[int, int, int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Tensor:
    """Gradient of :func:`roi_align_rotated` in the features.

    The features enter linearly, so only their shape matters.

    Args:
        grad: (K, C, pooled_height, pooled_width), gradient of the result.
        rois: (K, 6), as in the forward call.
        features_shape: (B, C, H, W).
        spatial_scale: size of the feature map over that of the image, as in the forward call.
        sampling_ratio: samples per bin along each side, as in the forward call.

    Returns:
        (B, C, H, W), in the dtype of ``grad``.

    Raises:
        ValueError: as in the forward call, or if ``grad`` does not fit it.
    """
    if grad.dim() != 4 or len(features_shape) != 4:
        raise ValueError(
            f"grad must be (K, C, h, w) and features_shape (B, C, H, W), got {tuple(grad.shape)} "
            f"and {tuple(features_shape)}"
        )
    _check_arguments(grad, rois, grad.shape[2:], spatial_scale)
    if grad.shape[0] != rois.shape[0] or grad.shape[1] != features_shape[1]:
        raise ValueError(
            f"grad {tuple(grad.shape)} does not fit {rois.shape[0]} rois and features of "
            f"{tuple(features_shape)}"
        )
    return torch.ops.rsd2.roi_align_rotated_backward(
        grad, rois, features_shape, spatial_scale, sampling_ratio
    )


def reference_roi_align_rotated(
    features: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Compute :func:`roi_align_rotated`, whose arguments it takes, in plain PyTorch."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    channels, size = features.shape[1], (output_size[0], output_size[1])
    rows = features.to(dtype).permute(0, 2, 3, 1).flatten(0, 2)
    pooled = rows.new_zeros(len(rois), size[0] * size[1], channels)

    for chosen, index, weight in _portions(
        rois, features.shape, size, spatial_scale, sampling_ratio
    ):
        sums = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight.to(dtype))
        pooled[chosen] += sums.view(len(chosen), -1, channels)

    return pooled.transpose(1, 2).unflatten(2, size).to(features.dtype).contiguous()


def reference_roi_align_rotated_backward(
    grad: Tensor,
    rois: Tensor,
    features_shape: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Compute :func:`roi_align_rotated_backward`, whose arguments it takes, in plain PyTorch."""
    batch, channels, height, width = features_shape
    dtype = torch.promote_types(grad.dtype, torch.float32)
    rows = grad.new_zeros(batch * height * width, channels, dtype=dtype)
    grad_bins = grad.to(dtype).flatten(2).transpose(1, 2)  # (K, T, C)
    size = (grad.shape[2], grad.shape[3])
    plan = _portions(rois, features_shape, size, spatial_scale, sampling_ratio)
    for chosen, index, weight in plan:
        # Each row of the table receives the gradient of its bin, weighted as in the forward pass.
        spread = weight.to(dtype)[..., None] * grad_bins[chosen].flatten(0, 1)[:, None]
        rows.index_add_(0, index.flatten(), spread.flatten(0, 1))

    rows = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return rows.to(grad.dtype).contiguous()


def _portions(
    rois: Tensor,
    features_shape: Sequence[int],
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Regions (k,), rows of the feature table (k * T, 4 g) and their weights, in portions.

    Where even the samples of one region are too many, a portion holds some rows of its grids.
    """
    rois = rois.to(torch.promote_types(rois.dtype, torch.float32))
    _check_values(rois, features_shape[0])
    if math.prod(features_shape) == 0:
        return

    wide = rois.double()
    if sampling_ratio > 0:
        grids = torch.full_like(wide[:, 3:5], sampling_ratio)
    else:
        bins = rois.new_tensor([size[1], size[0]])
        # The quotient is taken in the dtype of the regions, so that whole numbers round as they
        # do in Detectron2; a side of 0 has no samples and pools to 0.
        grids = torch.ceil(rois[:, 3:5] * spatial_scale / bins).double()

    samples = grids.prod(1) * (size[0] * size[1])
    # Written as "not <=", which NaN fails too.
    if len(rois) and not samples.max() <= MAX_REGION_SAMPLES:
        w, h = wide[samples.argmax(), 3:5].tolist()
        raise ValueError(
            f"a region of {w} x {h} needs more than 2^28 samples; clip it, or set sampling_ratio"
        )

    grids = torch.where(samples[:, None] == 0, 0, grids).long()
    # Regions with the same grid share one table of samples.
    kinds, kind_of = torch.unique(grids, dim=0, return_inverse=True)
    for kind, (grid_w, grid_h) in enumerate(kinds.tolist()):
        if grid_w == 0 or grid_h == 0:
            continue

        members = torch.nonzero(kind_of == kind).flatten()
        # Four neighbours of each sample, times the channels or the few tables that share them.
        numbers = 4 * size[0] * size[1] * grid_w * max(features_shape[1], 8)

        rows = torch.arange(grid_h, device=rois.device).split(max(1, VALUE_BUDGET // numbers))
        for chosen in members.split(max(1, VALUE_BUDGET // (numbers * grid_h))):
            images = wide[chosen, 0].long()
            for part in rows:
                x, y = _sample_points(wide[chosen], size, (grid_h, grid_w), part, spatial_scale)
                index, weight = _bilinear(x, y, images, features_shape)
                weight = weight / (grid_h * grid_w)

                yield chosen, index.flatten(2).flatten(0, 1), weight.flatten(2).flatten(0, 1)


def _sample_points(
    rois: Tensor,
    size: tuple[int, int],
    grid: tuple[int, int],
    rows: Tensor,
    spatial_scale: float,
) -> tuple[Tensor, Tensor]:
    """Positions x, y (k, T, g) of the samples in some rows of each bin's grid, in pixel centres."""
    (bins_h, bins_w), (grid_h, grid_w) = size, grid
    device, dtype = rois.device, rois.dtype

    steps_h = torch.arange(bins_h, device=device)[:, None] * grid_h + rows
    steps_w = torch.arange(bins_w * grid_w, device=device, dtype=dtype)
    # Bin edges are shares of the side in [-0.5, 0.5]; samples lie in the middle of their cells.
    share_h = ((steps_h.to(dtype) + 0.5) / (bins_h * grid_h) - 0.5).view(bins_h, 1, -1, 1)
    share_w = ((steps_w + 0.5) / (bins_w * grid_w) - 0.5).view(1, bins_w, 1, grid_w)

    _, cx, cy, w, h, angle = rois.view(-1, 6, 1, 1, 1, 1).unbind(1)
    sin, cos = sincos_degrees(angle)
    along, down = w * spatial_scale * share_w, h * spatial_scale * share_h

    # The rotation of the angle convention (y down); -0.5 moves from corners to pixel centres.
    x = cx * spatial_scale - 0.5 + cos * along + sin * down
    y = cy * spatial_scale - 0.5 - sin * along + cos * down

    shape = (len(rois), bins_h * bins_w, len(rows) * grid_w)
    return x.reshape(shape), y.reshape(shape)


def _bilinear(
    x: Tensor, y: Tensor, images: Tensor, features_shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Rows of the feature table and weights (k, T, G, 4) of the four neighbours of each sample."""
    _, _, height, width = features_shape
    inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)

    # A sample up to one pixel outside is moved onto the border, as Detectron2 does it.
    x = torch.where(inside, x, 0).clamp(0, width - 1)
    y = torch.where(inside, y, 0).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    # At the last row or column the neighbour is the pixel itself, with weight zero.
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    dx, dy = x - left, y - top

    base = (images * height).view(-1, 1, 1)
    rows_y = torch.stack([top, top, bottom, bottom], dim=-1).long()
    rows_x = torch.stack([left, right, left, right], dim=-1).long()
    index = (base[..., None] + rows_y) * width + rows_x
    weight = torch.stack([(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx], dim=-1)
    return index, weight * inside[..., None]


def _check(features: Tensor, rois: Tensor, size: tuple[int, ...], spatial_scale: float) -> None:
    if features.dim() != 4:
        raise ValueError(f"features must be (B, C, H, W), got {tuple(features.shape)}")
    _check_arguments(features, rois, size, spatial_scale)


def _check_arguments(maps: Tensor, rois: Tensor, size: Sequence[int], spatial_scale: float) -> None:
    if rois.dim() != 2 or rois.shape[1] != 6:
        raise ValueError(f"rois must be (K, 6), got {tuple(rois.shape)}")
    if rois.device != maps.device:
        raise ValueError(f"rois are on {rois.device}, but the maps are on {maps.device}")
    if not maps.is_floating_point():
        raise ValueError(f"features must be floating, got {maps.dtype}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"output_size must be two numbers >= 1, got {tuple(size)}")
    if not (math.isfinite(spatial_scale) and spatial_scale > 0):
        raise ValueError(f"spatial_scale must be positive, got {spatial_scale}")


def _check_values(rois: Tensor, num_images: int) -> None:
    if len(rois) == 0:
        return

    if not torch.isfinite(rois).all():
        raise ValueError("rois have non-finite numbers; drop these proposals first")
    if (rois[:, 3:5] < 0).any():
        raise ValueError(f"sides of rois must be >= 0, got {rois[:, 3:5].min().item()}")

    low, high = rois[:, 0].min().item(), rois[:, 0].max().item()
    if low < 0 or high >= num_images:
        raise ValueError(f"image indices {low} to {high} do not fit a batch of {num_images}")


def _fake(
    features: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    return features.new_empty(rois.shape[0], features.shape[1], *output_size)


def _fake_backward(
    grad: Tensor,
    rois: Tensor,
    features_shape: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    return grad.new_empty(features_shape)


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    features, rois, _, ctx.spatial_scale, ctx.sampling_ratio = inputs
    ctx.features_shape = features.shape
    ctx.save_for_backward(rois)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rois,) = ctx.saved_tensors
    in_features = torch.ops.rsd2.roi_align_rotated_backward(
        grad, rois, ctx.features_shape, ctx.spatial_scale, ctx.sampling_ratio
    )
    return in_features, None, None, None, None


# Kernels take half precision and sum in float32, so autocast has nothing to change.
register_operator(
    "roi_align_rotated_backward",
    reference_roi_align_rotated_backward,
    _fake_backward,
    autocast=None,
)
register_operator(
    "roi_align_rotated",
    reference_roi_align_rotated,
    _fake,
    backward=_backward,
    setup_context=_setup_context,
    autocast=None,
)
