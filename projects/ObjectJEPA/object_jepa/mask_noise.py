"""Random numbers of masks, which depend on the seed of each image alone.

A mask must not depend on the batch, the process or the loader's worker of its image, so
every image has its own counter-based stream.

Shapes: B images, N patches, T blocks, M valid boxes of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

BLOCK_DRAWS = 6


class MaskNoise(NamedTuple):
    """Uniform numbers in (0, 1), float64.

    Attributes:
        guide: (B,) decides whether objects guide the mask of the image.
        blocks: (B, T, 6) scale, aspect, row and column, object and patch of every block.
        hide: (B, N) decides which patches are hidden.
        part: (B, N) decides which patches of an object may be hidden.
        loss: (B, N) decides which hidden patches are predicted.
        context: (B, N) decides which visible patches are seen.
        objects: (M, 2) order in which objects fill the available room, and their choice.
    """

    guide: torch.Tensor
    blocks: torch.Tensor
    hide: torch.Tensor
    part: torch.Tensor
    loss: torch.Tensor
    context: torch.Tensor
    objects: torch.Tensor


def draw_noise(
    seeds: Sequence[int], num_objects: Sequence[int], num_patches: int, num_blocks: int
) -> MaskNoise:
    """Draw all random numbers of a batch.

    Args:
        seeds: B integers >= 0, one per image.
        num_objects: number of valid boxes of each image.
        num_patches: N, number of patches of an image.
        num_blocks: T, number of blocks of an image.

    Returns:
        The numbers; those of an image depend on its seed alone. Those of objects come last,
        so that the others are the same with any boxes.
    """
    fixed, objects = [], []
    for seed, count in zip(seeds, num_objects, strict=True):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(int(seed))))
        fixed.append(generator.random(1 + BLOCK_DRAWS * num_blocks + 4 * num_patches))
        objects.append(generator.random((count, 2)))

    # Zero has no logarithm.
    lowest = np.finfo(np.float64).tiny
    numbers = torch.from_numpy(np.stack(fixed).clip(lowest))
    sizes = [1, BLOCK_DRAWS * num_blocks, *[num_patches] * 4]
    guide, blocks, *patches = numbers.split(sizes, dim=1)
    blocks = blocks.unflatten(1, (num_blocks, BLOCK_DRAWS))
    rows = torch.from_numpy(np.concatenate(objects).reshape(-1, 2))
    return MaskNoise(guide[:, 0], blocks, *patches, rows)


def gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Turn uniform into Gumbel noise, whose largest sums with log-weights are a weighted draw.

    Args:
        uniform: any shape, in (0, 1).

    Returns:
        A tensor of the same shape.
    """
    return -(-uniform.log()).log()
