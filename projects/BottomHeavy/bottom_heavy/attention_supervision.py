"""What SSPNet's attention maps shall show, and their loss; all of it on the maps' device.

Shapes: B images, N boxes of one image, L levels from fine to coarse, level l at stride s_l;
H, W height and width of the padded image, H_l = H / s_l and W_l = W / s_l those of a level,
P = H_l * W_l, K pixels inside boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class AttentionQuirks:
    """Behaviour of SSPNet's released program that `AttentionLoss` can reproduce.

    Attributes:
        strict_ranges: all comparisons of sizes are strict, see `level_matches`.
        short_far_sides: distances to the far sides are one pixel shorter, see `centerness`.
    """

    strict_ranges: bool = False
    short_far_sides: bool = False


NO_QUIRKS = AttentionQuirks()
"""The sane behaviour."""


TARGET_KINDS = ("tinymap", "heatmap")
DOWNSAMPLINGS = ("bilinear", "area")


def level_matches(
    boxes: torch.Tensor, strides: Sequence[int], *, official: bool = False
) -> torch.Tensor:
    """Say which levels are to attend to which boxes.

    Source: SSPNet (arXiv 2107.01548): a level of stride s is for sizes sqrt(w h) from s to 8 s;
    the finest takes all that are smaller too, the coarsest all that are larger. Ranges overlap.

    Args:
        boxes: (N, 4) x0, y0, x1, y1, pixels of the network's input.
        strides: of the levels, ascending.
        official: the official program's comparisons, all strict: a size of exactly the
            finest stride belongs to no level.

    Returns:
        (L, N) bool.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    sizes = sides.prod(dim=1).sqrt()[None]
    low = torch.tensor(strides, dtype=sizes.dtype, device=sizes.device)[:, None]
    above, below = sizes > low if official else sizes >= low, sizes < 8 * low
    below[-1] |= above[-1]
    if official:
        above[0] |= sizes[0] < low[0]
    else:
        above[0] = True
    return above & below


def box_pixels(
    boxes: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List the pixels that boxes touch.

    Args:
        boxes: (N, 4) x0, y0, x1, y1, pixels.
        height: H of the image; what lies outside is left out.
        width: W.

    Returns:
        Three (K,) int64 tensors: index of the box, row, column; box after box.
    """
    limits = boxes.new_tensor([width, height])
    start = boxes[:, :2].floor().clamp(min=0).minimum(limits).long()
    end = boxes[:, 2:].ceil().clamp(min=0).minimum(limits).long()
    sides = (end - start).clamp(min=0)
    areas = sides.prod(dim=1)
    index = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), areas)
    place = torch.arange(len(index), device=boxes.device) - (areas.cumsum(0) - areas)[index]
    across = sides[index, 0]
    rows = start[index, 1] + torch.div(place, across, rounding_mode="floor")
    return index, rows, start[index, 0] + place % across


def centerness(
    boxes: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, *, official: bool = False
) -> torch.Tensor:
    """Score how central pixels are in their boxes.

    Source: FCOS (arXiv 1904.01355), equation 3, with distances counted from pixel edges so that a
    box one pixel wide has 1 and no pixel has 0.

    Args:
        boxes: (K, 4) box of each pixel.
        rows: (K,) of pixels that the box touches.
        columns: (K,).
        official: distances to the far sides are one pixel shorter, as in SSPNet's program: the
            last row and column of a box have 0.

    Returns:
        (K,) in [0, 1].
    """
    near = torch.stack([columns, rows], dim=1) + 1 - boxes[:, :2]
    far = boxes[:, 2:] - torch.stack([columns, rows], dim=1) - (1 if official else 0)
    far = far.clamp(min=0)
    ratios = torch.minimum(near, far) / torch.maximum(near, far)
    return ratios.prod(dim=1).sqrt()


def attention_targets(
    boxes: torch.Tensor,
    size: tuple[int, int],
    strides: Sequence[int],
    *,
    kind: str = "tinymap",
    quirks: AttentionQuirks = NO_QUIRKS,
    downsampling: str = "bilinear",
) -> list[torch.Tensor]:
    """Draw one image's target of every level.

    Source: SSPNet (arXiv 2107.01548) and its released programs. Where boxes overlap, the later
    one counts.

    Args:
        boxes: (N, 4) x0, y0, x1, y1, pixels of the network's input.
        size: (H, W), multiples of the strides.
        strides: of the levels, ascending.
        kind: "heatmap": 1 in boxes of the level, -1 in boxes of other levels, 0 elsewhere.
            "tinymap": `centerness` in boxes of the level, 0 elsewhere.
        quirks: of the released program.
        downsampling: from pixels to the level's grid. "bilinear", the original's, looks at the
            four pixels in the middle of each cell, and so misses objects beside them; "area"
            averages the whole cell.

    Returns:
        L maps (H_l, W_l) float32 in [-1, 1].

    Raises:
        ValueError: no such kind or downsampling.
    """
    if kind not in TARGET_KINDS or downsampling not in DOWNSAMPLINGS:
        raise ValueError(
            f"kind must be one of {TARGET_KINDS} and downsampling one of {DOWNSAMPLINGS}, got "
            f"{kind!r} and {downsampling!r}"
        )
    height, width = size
    boxes = boxes.float()
    index, rows, columns = box_pixels(boxes, height, width)
    places = rows * width + columns
    matches = level_matches(boxes, strides, official=quirks.strict_ranges)
    if kind == "tinymap":
        values = centerness(boxes[index], rows, columns, official=quirks.short_far_sides)
    targets = []
    for stride, matched in zip(strides, matches):
        if kind == "tinymap":
            drawn = matched[index]
            level_index, level_places, level_values = index[drawn], places[drawn], values[drawn]
        else:
            level_index, level_places = index, places
            level_values = torch.where(matched[index], 1.0, -1.0)
        canvas = boxes.new_zeros(height * width)
        owner = torch.full((height * width,), -1, device=boxes.device)
        owner.scatter_reduce_(0, level_places, level_index, "amax")
        last = owner[level_places] == level_index
        canvas[level_places[last]] = level_values[last]
        grid = (height // stride, width // stride)
        small = F.interpolate(canvas.view(1, 1, height, width), size=grid, mode=downsampling)
        targets.append(small[0, 0])
    return targets


def select_pixels(
    scores: torch.Tensor,
    targets: torch.Tensor,
    negatives_per_positive: float = 3.0,
    empty_fraction: float = 0.05,
) -> torch.Tensor:
    """Choose the pixels that count: every one in a box, and the hardest of the background.

    Source: SSPNet's released program.

    Args:
        scores: (B, P) predictions, any increasing function of the attention.
        targets: (B, P) in [-1, 1]; 0 is background.
        negatives_per_positive: background pixels per pixel above zero; those with the highest
            scores, ties included.
        empty_fraction: share of the map that is taken instead in an image without such pixels.

    Returns:
        (B, P) bool.
    """
    background = targets == 0
    positives = (targets > 0).sum(dim=1)
    wanted = (negatives_per_positive * positives).ceil().long()
    wanted = torch.where(positives > 0, wanted, max(int(empty_fraction * scores.shape[1]), 1))
    count = torch.minimum(wanted, background.sum(dim=1))
    ranked = scores.masked_fill(~background, -torch.inf).sort(dim=1, descending=True).values
    threshold = ranked.gather(1, (count - 1).clamp(min=0)[:, None])
    return ~background | (scores >= threshold) & (count > 0)[:, None]


class AttentionLoss(nn.Module):
    """Binary cross entropy on chosen pixels and Dice loss on objects, summed over the levels.

    Source: SSPNet (arXiv 2107.01548) and its released programs, which differ: "heatmap" with a
    ``bce_weight`` of 0.01 (the paper's release), "tinymap" with 0.0001 (its later version and the
    bottom-heavy detector). Probabilities are taken from logits, for the sake of precision.

    Args:
        strides: of the levels, ascending.
        kind: see `attention_targets`.
        bce_weight: of the cross entropy, >= 0.
        dice_weight: of the Dice loss, >= 0.
        marked_weight: of the cross entropy where the target is negative.
        negatives_per_positive: see `select_pixels`.
        empty_fraction: see `select_pixels`.
        quirks: of the released program.
        downsampling: see `attention_targets`.
    """

    def __init__(
        self,
        strides: Sequence[int] = (4, 8, 16, 32),
        *,
        kind: str = "heatmap",
        bce_weight: float = 0.01,
        dice_weight: float = 1.0,
        marked_weight: float = 3.0,
        negatives_per_positive: float = 3.0,
        empty_fraction: float = 0.05,
        quirks: AttentionQuirks = NO_QUIRKS,
        downsampling: str = "bilinear",
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.bce_weight, self.dice_weight = bce_weight, dice_weight
        self.marked_weight = marked_weight
        self.negatives_per_positive = negatives_per_positive
        self.empty_fraction = empty_fraction
        self.target_options = {"kind": kind, "quirks": quirks, "downsampling": downsampling}

    def forward(
        self, logits: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Compare attention with boxes.

        Args:
            logits: L maps (B, 1, H_l, W_l), fine to coarse.
            boxes: for each image (N, 4) x0, y0, x1, y1, pixels of the network's input; N >= 0.

        Returns:
            Scalars ``loss_attention_bce`` and ``loss_attention_dice``, weighted.

        Raises:
            ValueError: another number of maps than of strides.
        """
        if len(logits) != len(self.strides):
            raise ValueError(f"{len(logits)} attention maps for strides {self.strides}")
        size = tuple(side * self.strides[0] for side in logits[0].shape[-2:])
        drawn = [attention_targets(b, size, self.strides, **self.target_options) for b in boxes]
        bce = dice = logits[0].new_zeros((), dtype=torch.float32)
        for level, maps in enumerate(logits):
            flat = maps.float().flatten(1)
            targets = torch.stack([one[level] for one in drawn]).flatten(1)
            bce = bce + self._cross_entropy(flat, targets)
            dice = dice + dice_loss(flat.sigmoid(), targets > 0).mean()
        return {
            "loss_attention_bce": self.bce_weight * bce,
            "loss_attention_dice": self.dice_weight * dice,
        }

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Weighted mean over the chosen pixels of the batch; (B, P) to a scalar."""
        chosen = select_pixels(
            logits.detach(), targets, self.negatives_per_positive, self.empty_fraction
        )
        weights = torch.where(targets < 0, self.marked_weight, 1.0) * chosen
        losses = F.binary_cross_entropy_with_logits(
            logits, targets.clamp(min=0), weights, reduction="sum"
        )
        return losses / chosen.sum()


def dice_loss(probabilities: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Dice loss over the pixels of objects alone: it asks for attention there, and nothing else.

    Source: SSPNet (arXiv 2107.01548), with V-Net's squared denominator and a smoothing of 1.

    Args:
        probabilities: (B, P) in [0, 1].
        positive: (B, P) bool.

    Returns:
        (B,) in [0, 1); 0 for an image without objects.
    """
    inside = probabilities * positive
    numerator = 2 * (inside.sum(dim=1) + 1)
    return 1 - numerator / (inside.square().sum(dim=1) + positive.sum(dim=1) + 2)
