"""Sinusoidal encodings of token positions and of box coordinates.

Shapes: B images, H x W tokens, D = dims per coordinate.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def sine_embedding(
    coordinates: torch.Tensor, dims_per_coordinate: int, temperature: float = 10000.0
) -> torch.Tensor:
    """Encode each coordinate by interleaved sines and cosines of geometric frequencies.

    Source: "Attention Is All You Need", section 3.5, on continuous positions.

    Args:
        coordinates: (..., N) numbers, already multiplied by the wanted scale (2 pi for [0, 1]).
        dims_per_coordinate: D, even.
        temperature: base of the frequencies, > 0.

    Returns:
        (..., N * D) in the order of the coordinates; within one, sin and cos alternate.
    """
    index = torch.arange(dims_per_coordinate, dtype=torch.float32, device=coordinates.device)
    index = torch.div(index, 2, rounding_mode="floor")
    frequency = temperature ** (2 * index / dims_per_coordinate)
    phase = coordinates[..., None] / frequency.to(coordinates.dtype)
    encoded = torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1)
    return encoded.flatten(-3)


class SinePositionEncoding(nn.Module):
    """Encode the position of every valid token of a padded feature map.

    Source: DETR (arXiv 2005.12872), appendix A.4, with the half-token offset of Deformable DETR.

    Args:
        embed_dim: channels of the result; half for y, half for x; divisible by 4.
        temperature: base of the frequencies.
        offset: added to the 1-based token index before normalisation; -0.5 means token centres.
    """

    def __init__(self, embed_dim: int, temperature: float = 10000.0, offset: float = -0.5) -> None:
        super().__init__()
        if embed_dim % 4:
            raise ValueError(f"embed_dim must be divisible by 4, got {embed_dim}")
        self.embed_dim = embed_dim
        self.temperature = temperature
        self.offset = offset

    def forward(self, padding_mask: torch.Tensor) -> torch.Tensor:
        """Encode positions, normalised by the valid extent of each image.

        Args:
            padding_mask: (B, H, W) bool, True where the token is padding.

        Returns:
            (B, H, W, embed_dim) float32.
        """
        valid = (~padding_mask).float()
        y, x = valid.cumsum(1), valid.cumsum(2)
        y = (y + self.offset) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = (x + self.offset) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        coordinates = torch.stack([y, x], dim=-1)
        return sine_embedding(coordinates, self.embed_dim // 2, self.temperature)
