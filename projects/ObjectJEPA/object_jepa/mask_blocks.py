"""Rectangular blocks of patches, as I-JEPA hides them, anywhere or on objects.

Shapes: B images, T blocks, N = h w patches, M valid boxes of all images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .coverage import ObjectPatches


def block_sizes(
    noise: torch.Tensor, grid: Sequence[int], scale: Sequence[float], aspect: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the sides of blocks, with independent scale and aspect.

    Source: I-JEPA (arXiv 2301.08243), section 3. (The official program derives both from one
    random number, so that large blocks are always upright.)

    Args:
        noise: (B, T, 2) uniform numbers, for scale and aspect.
        grid: (h, w) patches.
        scale: smallest and largest share of the grid's area.
        aspect: smallest and largest height / width.

    Returns:
        Heights and widths, (B, T) int64, within the grid, at least 1.
    """
    (height, width), (low, high) = grid, scale
    area = (low + noise[..., 0] * (high - low)) * height * width
    ratio = aspect[0] + noise[..., 1] * (aspect[1] - aspect[0])
    heights = (area * ratio).sqrt().round().clamp(1, height).long()
    widths = (area / ratio).sqrt().round().clamp(1, width).long()
    return heights, widths


def place_blocks(
    noise: torch.Tensor,
    sizes: tuple[torch.Tensor, torch.Tensor],
    grid: Sequence[int],
    anchors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Place blocks inside the grid.

    Every place is possible, the last row and column too. (The official program excludes them.)

    Args:
        noise: (B, T, 2) uniform numbers, for row and column.
        sizes: heights and widths from `block_sizes`.
        grid: (h, w) patches.
        anchors: (B, T) int64 patches that the blocks must cover; -1 for anywhere.

    Returns:
        (B, T, N) bool.
    """
    anchors = torch.full(sizes[0].shape, -1) if anchors is None else anchors
    places = [torch.div(anchors, grid[1], rounding_mode="floor"), anchors % grid[1]]
    parts = []
    for axis, (side, length, place) in enumerate(zip(grid, sizes, places)):
        last, draw = side - length, noise[..., axis]
        # The last start is included: I-JEPA's exclusive bound never hides the last row and
        # column.
        free = (draw * (last + 1)).floor().long()
        # The anchor lies at a random place within its block, as far as the grid allows.
        around = (place - (draw * length).floor().long()).clamp(min=0).minimum(last)
        start = torch.where(anchors >= 0, around, free)[..., None]
        index = torch.arange(side)
        parts.append((index >= start) & (index < start + length[..., None]))

    rows, columns = parts
    return (rows[..., :, None] & columns[..., None, :]).flatten(2)


def draw_anchors(noise: torch.Tensor, found: ObjectPatches, guided: torch.Tensor) -> torch.Tensor:
    """Draw patches of objects: first an object, whatever its size, then one of its patches.

    Args:
        noise: (B, T, 2) uniform numbers, for object and patch.
        found: patches of all boxes; those without a patch are never drawn.
        guided: (B,) bool, images whose blocks lie on objects.

    Returns:
        (B, T) int64; -1 in images that are not guided or have no object.
    """
    shown = found.counts > 0
    objects, counts = found.image[shown], found.counts[shown]
    in_image = torch.bincount(objects, minlength=len(guided))
    usable = guided & (in_image > 0)
    if not usable.any():
        return torch.full(noise.shape[:2], -1)

    # both lists are sorted: by image, and by object
    first_object = (in_image.cumsum(0) - in_image).clamp(max=len(objects) - 1)
    first_pair = counts.cumsum(0) - counts
    chosen = first_object[:, None] + (noise[..., 0] * in_image[:, None]).floor().long()
    chosen = chosen.clamp(max=len(objects) - 1)  # of images without objects, which are left out
    pair = first_pair[chosen] + (noise[..., 1] * counts[chosen]).floor().long()
    return torch.where(usable[:, None], found.patch[pair], -1)
