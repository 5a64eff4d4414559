"""Convolutions of 1 x 1 pixels that are fast on one thread of a CPU.

Shapes: B images, C channels, H, W height and width in pixels.
"""

from __future__ import annotations

import torch
from torch import nn

_IMAGES = 16
"""Number of images from which PyTorch gives 1 x 1 convolutions to oneDNN on one thread, too."""


class PointwiseConv2d(nn.Conv2d):
    """A convolution of 1 x 1 pixels, stride 1, which takes every row of pixels for an image.

    With fewer than 16 images and one thread PyTorch multiplies matrices by its BLAS, which on AMD's
    processors takes twice the time of oneDNN, forwards and backwards. A pixel's result does not
    depend on where the pixel lies. Everything else runs as in `nn.Conv2d`: other layouts than
    channels last, other devices and precisions, more threads or images, exported graphs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, H, W) into (B, out_channels, H, W)."""
        batch, channels, height, width = x.shape
        # A traced graph holds for any number of images, so it must not ask for it.
        if (
            torch.compiler.is_compiling()
            or not batch < _IMAGES <= batch * height
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or torch.get_num_threads() > 1
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(x)

        # With channels last, pixels lie one behind the other, so that nothing is copied.
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, 1, width, channels)
        found = super().forward(rows.permute(0, 3, 1, 2))
        return found.permute(0, 2, 3, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def use_pointwise_convolutions(model: nn.Module) -> None:
    """Make all convolutions of 1 x 1 pixels and stride 1 `PointwiseConv2d`.

    Args:
        model: model to change in place; its parameters and their names stay.
    """
    for module in model.modules():
        # Subclasses pad or normalise in ways of their own.
        if type(module) is nn.Conv2d and (
            (module.kernel_size, module.stride, module.padding, module.groups)
            == ((1, 1), (1, 1), (0, 0), 1)
        ):
            module.__class__ = PointwiseConv2d
