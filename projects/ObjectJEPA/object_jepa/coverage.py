"""Which patches of an image belong to an object: the coverage rule.

Areas are exact, from the IoU of rotated boxes, so that upright and rotated boxes obey one rule.

Shapes: B images, G boxes of an image (padded), M valid boxes of all images, N = h w patches, row by
row, E pairs of a box and one of its patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from rsd2.ops import sparse_iou_rotated

_ROUNDING = 1e-9


@dataclass(frozen=True)
class CoverageRule:
    """Rule by which patches belong to objects: the overlap is a large share of either.

    One condition is enough; a share above 1 switches a condition off, and 0 means that
    touching is enough.

    Attributes:
        coverage: least share of the patch that the box covers, >= 0.
        box_share: least share of the box that lies in the patch, >= 0.
        center: whether the patch that contains the box's centre belongs to it.
        dilation: number of rings of patches around these that belong to the object too, >= 0.
    """

    coverage: float = 0.25
    box_share: float = 0.25
    center: bool = True
    dilation: int = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        if min(self.coverage, self.box_share, self.dilation) < 0:
            raise ValueError(
                "coverage, box_share and dilation must be at least 0, got "
                f"{self.coverage}, {self.box_share} and {self.dilation}"
            )


@dataclass(frozen=True)
class ObjectPatches:
    """Patches of every valid box, as pairs, because a box touches few patches.

    Attributes:
        image: (M,) int64, the image of each box, ascending.
        box: (E,) int64, box of each pair, ascending.
        patch: (E,) int64, patch of each pair, ascending for each box.
        strength: (E,) float64 in [0, 1], the larger of coverage and box share.
        num_images: B, number of images.
        num_patches: N, number of patches of an image.
    """

    image: torch.Tensor
    box: torch.Tensor
    patch: torch.Tensor
    strength: torch.Tensor
    num_images: int
    num_patches: int

    @cached_property
    def member(self) -> torch.Tensor:
        """Matrix (M, N) bool: which patches belong to a box."""
        flags = torch.zeros(len(self.image), self.num_patches, dtype=torch.bool)
        flags[self.box, self.patch] = True
        return flags

    @cached_property
    def counts(self) -> torch.Tensor:
        """Number of patches of every box, (M,) int64."""
        return torch.bincount(self.box, minlength=len(self.image))

    def join(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Mark the patches of any box of an image.

        Args:
            chosen: (E,) bool, pairs that count; None for all.

        Returns:
            (B, N) bool.
        """
        flags = torch.zeros(self.num_images, self.num_patches, dtype=torch.bool)
        pairs = slice(None) if chosen is None else chosen
        flags[self.image[self.box[pairs]], self.patch[pairs]] = True
        return flags

    def reduce(self, values: torch.Tensor, operation: str, initial: float) -> torch.Tensor:
        """Reduce one number per pair over the boxes of an image.

        Args:
            values: (E,) float64, one per pair.
            operation: "amin" or "amax".
            initial: value of patches without a box; it also takes part in the reduction.

        Returns:
            (B, N) float64.
        """
        result = torch.full((self.num_images * self.num_patches,), initial, dtype=torch.float64)
        index = self.image[self.box] * self.num_patches + self.patch
        result.scatter_reduce_(0, index, values, operation)
        return result.view(self.num_images, self.num_patches)


def patch_boxes(grid: Sequence[int], patch_size: int) -> torch.Tensor:
    """Return the patches of a grid as rotated boxes.

    Args:
        grid: (h, w) patches.
        patch_size: side of a patch, pixels.

    Returns:
        (N, 5) float64 cx, cy, w, h, angle 0.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    centers = (torch.stack([columns, rows], dim=-1).flatten(0, 1).double() + 0.5) * patch_size
    sides = torch.full_like(centers, patch_size)
    return torch.cat([centers, sides, torch.zeros_like(sides[:, :1])], dim=1)


def find_object_patches(
    boxes: torch.Tensor,
    valid: torch.Tensor,
    *,
    grid: Sequence[int],
    patch_size: int,
    rule: CoverageRule,
) -> ObjectPatches:
    """Apply the coverage rule to every box.

    Args:
        boxes: (B, G, 5) cx, cy, w, h in pixels, angle in degrees, any angle.
        valid: (B, G) bool; False marks padding. A valid box that is not finite, or without
            an area, has no patch but that of its centre.
        grid: (h, w) patches.
        patch_size: side of a patch, pixels.
        rule: rule of coverage.

    Returns:
        The patches of each valid box, image by image, in the order of the boxes.
    """
    chosen = boxes[valid].double()
    num_patches = grid[0] * grid[1]
    box, patch, iou = sparse_iou_rotated(chosen, patch_boxes(grid, patch_size))
    # The exact shared area follows from the IoU: shared = IoU (A + a) / (1 + IoU).
    area, patch_area = (chosen[:, 2] * chosen[:, 3])[box], float(patch_size**2)
    shared = iou * (area + patch_area) / (1 + iou)
    coverage, box_share = shared / patch_area, shared / area

    reached = _reaches(coverage, rule.coverage) | _reaches(box_share, rule.box_share)
    overlapping = box * num_patches + patch
    pairs = overlapping[reached]
    # Small boxes on a corner of four patches may cover none of them enough: their centre counts.
    if rule.center:
        pairs = torch.cat([pairs, _centers(chosen, grid, patch_size)]).unique()

    # A maximum over a window grows the patches by so many rings.
    if rule.dilation:
        flags = torch.zeros(len(chosen), 1, *grid)
        flags.view(-1)[pairs] = 1
        size = 2 * rule.dilation + 1
        dilated = F.max_pool2d(flags, size, stride=1, padding=rule.dilation)
        pairs = dilated.flatten().nonzero()[:, 0]

    strength = torch.zeros(len(chosen) * num_patches, dtype=torch.float64)
    # Patches that only the centre or the dilation adds keep their true, small strength.
    strength[overlapping] = torch.maximum(coverage, box_share).clamp(max=1.0)
    return ObjectPatches(
        image=valid.nonzero()[:, 0],
        box=torch.div(pairs, num_patches, rounding_mode="floor"),
        patch=pairs % num_patches,
        strength=strength[pairs],
        num_images=len(boxes),
        num_patches=num_patches,
    )


def _centers(boxes: torch.Tensor, grid: Sequence[int], patch_size: int) -> torch.Tensor:
    """Return the pairs, as box * N + patch, of the boxes whose centre lies in the grid."""
    columns, rows = (boxes[:, :2] / patch_size).floor().nan_to_num(-1.0).unbind(1)
    inside = (rows >= 0) & (rows < grid[0]) & (columns >= 0) & (columns < grid[1])
    places = (rows * grid[1] + columns)[inside].long()
    return inside.nonzero()[:, 0] * grid[0] * grid[1] + places


def _reaches(share: torch.Tensor, least: float) -> torch.Tensor:
    """Tell whether a share is large enough; contact along an edge does not count."""
    return (share >= least - _ROUNDING) & (share > _ROUNDING)
