"""Which patches of an image belong to an object: the coverage rule.

Areas are exact, from the IoU of rotated boxes, so that upright and rotated boxes obey one rule.

Shapes: B images, G boxes of an image (padded), M valid boxes of all images, N = h w patches, row by
row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from rsd2.ops import box_iou_rotated

_ROUNDING = 1e-9


@dataclass(frozen=True)
class CoverageRule:
    """A patch belongs to an object that covers enough of it, or has enough of itself in it.

    Source: methods/object_jepa.md, section 4.1. One of the conditions suffices; a share above 1
    switches a condition off, and 0 means that touching is enough.

    Attributes:
        coverage: least share of the patch that the box covers, >= 0.
        box_share: least share of the box that lies in the patch, >= 0.
        center: the patch that contains the box's centre belongs to it.
        dilation: rings of patches around these that belong to the object too, >= 0.
    """

    coverage: float = 0.25
    box_share: float = 0.25
    center: bool = True
    dilation: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if min(self.coverage, self.box_share, self.dilation) < 0:
            raise ValueError(
                "coverage, box_share and dilation are at least 0, got "
                f"{self.coverage}, {self.box_share} and {self.dilation}"
            )


class ObjectPatches(NamedTuple):
    """Patches of every valid box.

    Attributes:
        image: (M,) int64, the image of each box, ascending.
        member: (M, N) bool.
        strength: (M, N) float64 in [0, 1], the larger of coverage and box share.
    """

    image: torch.Tensor
    member: torch.Tensor
    strength: torch.Tensor


def patch_boxes(grid: Sequence[int], patch_size: int) -> torch.Tensor:
    """The patches of a grid as rotated boxes.

    Args:
        grid: (h, w).
        patch_size: pixels.

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
        valid: (B, G) bool; the others are padding. A valid box that is not finite, or without
            an area, has no patch but that of its centre.
        grid: (h, w).
        patch_size: pixels.
        rule: of coverage.

    Returns:
        what belongs to each valid box, image by image, in the order of the boxes.
    """
    height, width = grid
    image = valid.nonzero()[:, 0]
    chosen = boxes[valid].double()
    iou = box_iou_rotated(chosen, patch_boxes(grid, patch_size))
    area, patch_area = chosen[:, 2:3] * chosen[:, 3:4], float(patch_size**2)
    shared = iou * (area + patch_area) / (1 + iou)
    coverage = (shared / patch_area).nan_to_num(0.0)
    box_share = torch.where(shared > 0, shared / area, 0.0)
    member = _reaches(coverage, rule.coverage) | _reaches(box_share, rule.box_share)
    if rule.center:
        columns, rows = (chosen[:, :2] / patch_size).floor().nan_to_num(-1.0).unbind(1)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        place = (rows * width + columns)[inside].long()
        member[inside.nonzero()[:, 0], place] = True
    if rule.dilation:
        size = 2 * rule.dilation + 1
        maps = member.double().view(-1, 1, height, width)
        member = F.max_pool2d(maps, size, stride=1, padding=rule.dilation).flatten(1) > 0
    strength = torch.maximum(coverage, box_share).clamp(max=1.0)
    return ObjectPatches(image, member, strength)


def patch_scores(
    boxes: torch.Tensor,
    valid: torch.Tensor,
    grid: Sequence[int],
    patch_size: int,
    rule: CoverageRule | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score every patch by the object that it shows best.

    Args:
        boxes: see `find_object_patches`, as all others.
        valid: (B, G) bool.
        grid: (h, w).
        patch_size: pixels.
        rule: of coverage; None for its defaults.

    Returns:
        (B, N) float64 scores in [0, 1], the largest strength of an object that the patch belongs
        to, 0 for background; (B, N) bool, whether it belongs to one.
    """
    found = find_object_patches(
        boxes, valid, grid=grid, patch_size=patch_size, rule=rule or CoverageRule()
    )
    objects = any_of_image(found.member, found.image, len(boxes))
    return strongest_of_image(found, len(boxes)), objects


def any_of_image(flags: torch.Tensor, image: torch.Tensor, num_images: int) -> torch.Tensor:
    """Join the flags of all boxes of an image.

    Args:
        flags: (M, N) bool.
        image: (M,) int64.
        num_images: B.

    Returns:
        (B, N) bool.
    """
    counts = torch.zeros(num_images, flags.shape[1], dtype=torch.int64)
    return counts.index_add_(0, image, flags.long()) > 0


def strongest_of_image(found: ObjectPatches, num_images: int) -> torch.Tensor:
    """Largest strength of the boxes that a patch belongs to.

    Args:
        found: of `find_object_patches`.
        num_images: B.

    Returns:
        (B, N) float64, 0 for background.
    """
    values = torch.where(found.member, found.strength, 0.0)
    result = torch.zeros(num_images, values.shape[1], dtype=values.dtype)
    return result.scatter_reduce_(0, found.image[:, None].expand_as(values), values, "amax")


def _reaches(share: torch.Tensor, least: float) -> torch.Tensor:
    """Whether a share is large enough; touching along an edge is no touching."""
    return (share >= least - _ROUNDING) & (share > _ROUNDING)
