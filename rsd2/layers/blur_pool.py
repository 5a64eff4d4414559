"""Low-pass filtering before subsampling, so that fine detail does not alias.

Shapes: B images, C channels, H, W height and width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class BlurPool(nn.Module):
    """Halve the resolution behind a binomial low-pass filter, each channel for itself.

    Source: "Making Convolutional Networks Shift-Invariant Again" (arXiv 1904.11486), the filter
    [1, 3, 3, 1]. With ``gain`` 2 it is the low-low band of the wavelet bior3.3, which the
    anti-aliased bottom-heavy ResNet (arXiv 2310.14221) subsamples with; 1 keeps the mean.

    Args:
        channels: C.
        gain: factor of the result; > 0.
    """

    kernel: torch.Tensor

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        if gain <= 0:
            raise ValueError(f"gain must be positive, got {gain}")

        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        # The rows sum to 8, so 64 makes the sum of the filter equal to the gain.
        kernel = gain * torch.outer(row, row) / 64
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2)), zeros beyond the border."""
        # An odd size gets one more row of zeros, so that the result has the size of a strided
        # convolution's.
        height, width = x.shape[-2:]
        x = F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2))
        return F.conv2d(x, self.kernel.to(x.dtype), stride=2, groups=x.shape[1])
