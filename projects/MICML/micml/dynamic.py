"""The dynamic branch: factorised 3-D convolutions over the clip, with motion mining on top.

Shapes: B clips, T frames, newest first, H, W of a frame; three levels with c_j channels and stride
2^j.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .dla import DLAUp
from .motion import MotionModule

MAX_FRAMES = 5
POOLED_FRAMES = 3  # the newest; older ones contribute through the convolutions in time


class AxisConvolution(nn.Module):
    """A 3-D convolution along one axis, BatchNorm and ReLU; the output is as large as the input.

    Source: DSFNet (GRSL 2021), the dynamic branch. The computation merges the other
    axes and works in two dimensions: the same sums, for which there are faster kernels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: (time, height, width), odd, two of them 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel_size)
        self.conv = nn.Conv3d(
            in_channels, out_channels, tuple(kernel_size), padding=padding, bias=False
        )
        self.norm = nn.BatchNorm3d(out_channels, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""
        return F.relu_(self.norm(self.convolve(x)))

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T, H, W) by the convolution alone."""
        weight, (before, above, beside) = self.conv.weight, self.conv.padding
        # The padding tells the axis: only the axis of the kernel is padded.
        if before:
            pixels = F.conv2d(x.flatten(3), weight.flatten(3), padding=(before, 0))
            return pixels.unflatten(3, x.shape[3:])

        if beside:
            rows = F.conv2d(x.flatten(2, 3), weight[:, :, 0], padding=(0, beside))
            return rows.unflatten(2, x.shape[2:4])

        frames = F.conv2d(x.transpose(1, 2).flatten(0, 1), weight[:, :, 0], padding=(above, 0))
        return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def _factorised(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    """Make convolutions along the rows, the columns and the time."""
    return nn.Sequential(
        AxisConvolution(in_channels, out_channels, (1, 1, size)),
        AxisConvolution(out_channels, out_channels, (1, size, 1)),
        AxisConvolution(out_channels, out_channels, (3, 1, 1)),
    )


class DynamicBranch(nn.Module):
    """Features of what moves, at strides 1, 2 and 4.

    Source: DSFNet (GRSL 2021), the dynamic branch; MICPL (TNNLS 2024) for the motion.

    Args:
        channels: c_0, c_1, c_2 of the levels.
        motion: module that adds to the features of stride 4; None for DSFNet.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32, 64), motion: MotionModule | None = None
    ) -> None:
        super().__init__()
        widths = (3, *channels)
        self.channels = tuple(channels)
        self.stages = nn.ModuleList(
            _factorised(a, b, size) for a, b, size in zip(widths[:-1], widths[1:], (5, 3, 3))
        )
        self.motion = motion
        self.aggregation = DLAUp(channels)

    def forward(self, clips: torch.Tensor, *, with_motion: bool) -> list[torch.Tensor]:
        """Compute the maps.

        Args:
            clips: (B, 3, T, H, W), normalised; T from 3 to 5, H and W multiples of 4.
            with_motion: run the motion module, if there is one.

        Returns:
            Three maps, map j of shape (B, c_j, H / 2^j, W / 2^j).

        Raises:
            ValueError: T is outside this range.
        """
        if not POOLED_FRAMES <= clips.shape[2] <= MAX_FRAMES:
            raise ValueError(
                f"a clip needs {POOLED_FRAMES} to {MAX_FRAMES} frames, got {clips.shape[2]}; a "
                "shorter video repeats its first frame"
            )

        x, levels = clips, []
        for index, stage in enumerate(self.stages):
            x = stage(F.max_pool3d(x, (1, 2, 2)) if index else x)
            # DSFNet pools time with kernel and stride 3 and no padding: of five frames only the
            # newest three enter the maximum.
            newest = x[:, :, :POOLED_FRAMES]
            # The motion module works at stride 4 only, between the last stage and its pooling.
            if with_motion and self.motion is not None and index == len(self.stages) - 1:
                newest = newest + self.motion(x, POOLED_FRAMES)

            levels.append(newest.amax(dim=2))
        return self.aggregation(levels)
