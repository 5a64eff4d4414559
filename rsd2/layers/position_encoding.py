"""Sinusoidal encodings of token positions and of box coordinates.

Shapes: B images, H x W tokens, D = dims per coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

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
    # A sine and the cosine after it share one frequency.
    index = torch.div(index, 2, rounding_mode="floor")
    frequency = temperature ** (2 * index / dims_per_coordinate)
    # In the dtype of the coordinates: half precision in, half precision out.
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

        # The last valid index normalises, so an image's encoding does not depend on its padding.
        y = (y + self.offset) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = (x + self.offset) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        coordinates = torch.stack([y, x], dim=-1)
        return sine_embedding(coordinates, self.embed_dim // 2, self.temperature)


def sincos_positions_2d(
    grid: Sequence[int], dim: int, scale: Sequence[float] = (1.0, 1.0)
) -> torch.Tensor:
    """Encode the column and the row of every token of a grid by fixed sines and cosines.

    Source: the tables of MAE (arXiv 2111.06377) and I-JEPA (arXiv 2301.08243): the first half of
    the channels encodes the column x, the second the row y; each half holds all sines, then all
    cosines, of x w_k with w_k = 10000^(-k / (dim / 4)), k = 0 ... dim / 4 - 1.

    Args:
        grid: (h, w) tokens.
        dim: channels, divisible by 4.
        scale: tokens of the pre-training per token of this grid, along (y, x). The *centres* of
            the tokens are scaled, so that with ``scale = pre / own`` both grids cover the same
            area: token i has the coordinate (i + 0.5) scale - 0.5, which is i for scale 1.

    Returns:
        (h * w, dim) float32, row by row.

    Raises:
        ValueError: ``dim`` is not divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"dim must be divisible by 4, got {dim}")
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def encode(count: int, factor: float) -> torch.Tensor:
        centers = (torch.arange(count, dtype=torch.float64) + 0.5) * factor - 0.5
        phase = centers[:, None] * frequency
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    (height, width), (scale_y, scale_x) = grid, scale
    x = encode(width, scale_x).expand(height, -1, -1)
    y = encode(height, scale_y)[:, None].expand(-1, width, -1)
    return torch.cat([x, y], dim=2).flatten(0, 1).float()


def cached_sincos_positions_2d(
    grid: tuple[int, int],
    dim: int,
    scale: tuple[float, float],
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Compute `sincos_positions_2d` on a device and keep the last tables asked for.

    Args:
        grid: (h, w) tokens.
        dim: channels, divisible by 4.
        scale: factors of the token coordinates along (y, x), see `sincos_positions_2d`.
        device: device of the table.
        dtype: dtype of the table.

    Returns:
        (h * w, dim); not to be changed.

    Raises:
        ValueError: ``dim`` is not divisible by 4.
    """
    # A tracer's tensors have no values: one of them, kept, would spoil every later call.
    make = _make_table if torch.compiler.is_compiling() else _kept_table
    return make(grid, dim, scale, device, dtype)


def _make_table(
    grid: tuple[int, int],
    dim: int,
    scale: tuple[float, float],
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Table of `sincos_positions_2d`, outside of inference mode, because training uses it too."""
    with torch.inference_mode(False):
        return sincos_positions_2d(grid, dim, scale).to(device, dtype)


_kept_table = lru_cache(maxsize=16)(_make_table)
