"""The modulated deformable convolution: torchvision's, and the same sum made fast on a CPU.

Shapes: B images, C and D input and output channels, H, W height and width, K = k k taps.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import DeformConv2d


def sampled_deform_conv2d(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Deformable convolution of stride 1 by `grid_sample` and one matrix product.

    Source: Deformable ConvNets v2 (arXiv 1811.11168), equation 1. Equal to
    ``torchvision.ops.deform_conv2d`` up to rounding, gradients too (at whole-pixel positions,
    where the bilinear kernel has a kink, either of its two slopes).

    Args:
        x: (B, C, H, W).
        offset: (B, 2 K, H, W), pixels, (dy, dx) of each tap, row by row.
        weight: (D, C, k, k), k odd; the padding is k // 2.
        bias: (D,), or None.
        mask: (B, K, H, W), the factor of each tap.

    Returns:
        (B, D, H, W).
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    steps = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    rows = torch.arange(height, dtype=x.dtype, device=x.device)
    columns = torch.arange(width, dtype=x.dtype, device=x.device)

    moves = offset.unflatten(1, (size, size, 2))
    y = moves[:, :, :, 0] + steps[:, None, None, None] + rows[:, None]
    x_position = moves[:, :, :, 1] + steps[:, None, None] + columns

    # grid_sample counts from -1 to 1, from edge to edge of the image.
    grid = torch.stack([(2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    samples = F.grid_sample(x, grid.flatten(1, 3), padding_mode="zeros", align_corners=False)
    samples = samples.view(batch, channels, size**2, height * width) * mask.flatten(2)[:, None]
    # Not matmul, which would transpose the samples and copy them.
    result = weight.flatten(1).expand(batch, -1, -1).bmm(samples.flatten(1, 2))
    if bias is not None:
        result = result + bias[:, None]
    return result.view(batch, -1, height, width)


class DeformableConv2d(DeformConv2d):
    """torchvision's ``DeformConv2d`` of stride 1 with modulation, with a faster path on a CPU.

    On a CPU torchvision's backward pass is several times slower than that of
    `sampled_deform_conv2d`, which is used there instead.

    Args:
        in_channels: C.
        out_channels: D.
        kernel_size: k, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Convolve, each tap at its own offset and with its own factor.

        Args:
            x: (B, C, H, W).
            offset: (B, 2 k k, H, W), pixels, (dy, dx) of each tap, row by row.
            mask: (B, k k, H, W), the factor of each tap.

        Returns:
            (B, D, H, W).
        """
        if x.device.type == "cpu":
            return sampled_deform_conv2d(x, offset, self.weight, self.bias, mask)
        return super().forward(x, offset, mask)
