"""Numeric precision under mixed precision training."""

from __future__ import annotations

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Lift half-precision tensors to float32; leave float32 and float64 alone.

    Args:
        x: floating tensor of any shape. Box coordinates need it: bfloat16 has 8 bits, which is
            four pixels in an image of 1000.

    Returns:
        The same values.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
