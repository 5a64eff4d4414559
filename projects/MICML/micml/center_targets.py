"""Heat maps with a peak at every object's centre, and the regression targets there.

Shapes: B frames, K classes, N objects of the fullest frame, H, W height and width of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances

RADIUS_RULES = ("official", "at_least_one", "corrected")
_MIN_OVERLAP = 0.7  # a corner moved by the radius leaves boxes of this IoU


@dataclass(frozen=True)
class CenterTargets:
    """Targets of the heads.

    Attributes:
        heatmap: (B, K, H, W) float32 in [0, 1]; 1 exactly where a centre is.
        size: (B, N, 2) float32, width and height in pixels.
        offset: (B, N, 2) float32 in [0, 1), (x, y) of the centre inside its pixel.
        indices: (B, N) int64, y * W + x of the centre's pixel; 0 where ``mask`` is False.
        mask: (B, N) bool, True in the rows that are objects; the other rows are 0.
    """

    heatmap: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor
    indices: torch.Tensor
    mask: torch.Tensor


def gaussian_radius(width: int, height: int, rule: str = "official") -> int:
    """Compute how far around its centre a box softens the penalty of a wrong peak.

    Source: CornerNet (ECCV 2018), section 3.2, with an overlap of 0.7: the minimum of three cases
    (both corners inside, both outside, one of each). The official formula has lost a division by
    2a, after which the third case always decides; ``corrected`` solves the quadratic equations,
    which gives less than a third of that: 0 below a side of 13 px.
    ``at_least_one`` is the official radius, but 1 for the smallest boxes too.

    Args:
        width: width of the box, pixels, >= 1.
        height: height of the box, pixels, >= 1.
        rule: one of `RADIUS_RULES`.

    Returns:
        Whole pixels, >= 0, rounded down.

    Raises:
        ValueError: the rule is unknown.
    """
    check_radius_rule(rule)
    total, area, m = width + height, width * height, _MIN_OVERLAP
    if rule == "corrected":
        mixed = (total - math.sqrt(total**2 - 4 * area * (1 - m) / (1 + m))) / 2
        inside = (total - math.sqrt(total**2 - 4 * area * (1 - m))) / 4
        outside = (math.sqrt((m * total) ** 2 + 4 * m * (1 - m) * area) - m * total) / (4 * m)
        return int(min(mixed, inside, outside))
    # The official formula: the third case with its quadratic formula short of a division.
    radius = int(math.sqrt((m * total) ** 2 + 4 * m * (1 - m) * area) - m * total)
    return max(radius, 1) if rule == "at_least_one" else radius


def check_radius_rule(rule: str) -> None:
    """Validate the name of a radius rule.

    Args:
        rule: name of a rule.

    Raises:
        ValueError: the name is not in `RADIUS_RULES`.
    """
    if rule not in RADIUS_RULES:
        raise ValueError(f"radius_rule must be one of {', '.join(RADIUS_RULES)}, got {rule!r}")


def draw_targets(
    instances: Sequence[Instances],
    size: tuple[int, int],
    num_classes: int,
    device: torch.device,
    radius_rule: str = "official",
) -> CenterTargets:
    """Draw the heat maps of labelled frames, and list the regression targets.

    Source: CenterNet (arXiv 1904.07850), section 3, for any number of objects and any shape of
    frame. Centres outside the frame move to its border; widths and heights are cut to the frame's
    minus 1. Boxes without width or height, or that are not finite, are left out: readers report
    them. Everything is computed on the CPU, where the labels are, so that it never waits for a GPU.

    Args:
        instances: labels of each frame: ``gt_boxes`` (XYXY, pixels) and ``gt_classes`` in [0, K).
        size: (H, W) of the frames, pixels.
        num_classes: K, number of classes.
        device: device of the returned tensors.
        radius_rule: see `gaussian_radius`.

    Returns:
        The targets.

    Raises:
        ValueError: the rule is unknown.
    """
    check_radius_rule(radius_rule)
    height, width = size
    limits = torch.tensor([width - 1, height - 1], dtype=torch.float32)
    heatmap = torch.zeros(len(instances), num_classes, height, width)
    rows = []

    for frame, objects in zip(heatmap, instances):
        boxes = objects.gt_boxes.tensor.to("cpu", torch.float32).view(-1, 4)
        # Sides are cut to the frame's minus 1, as in the official program.
        sides = torch.minimum(boxes[:, 2:] - boxes[:, :2], limits)
        keep = (sides > 0).all(dim=1) & boxes.isfinite().all(dim=1)
        boxes, sides = boxes[keep], sides[keep]
        classes = objects.gt_classes.cpu()[keep]
        # Centres outside the frame move to its border.
        centers = torch.minimum(((boxes[:, :2] + boxes[:, 2:]) / 2).clamp(min=0), limits)
        pixels = centers.floor()
        _draw_gaussians(frame, pixels.long(), sides, classes, radius_rule)
        rows.append((sides, centers - pixels, pixels[:, 1].long() * width + pixels[:, 0].long()))

    count = max((len(sides) for sides, _, _ in rows), default=0)
    size_of, offset_of = (torch.zeros(len(rows), count, 2) for _ in range(2))
    indices = torch.zeros(len(rows), count, dtype=torch.long)
    mask = torch.zeros(len(rows), count, dtype=torch.bool)
    # Frames have different numbers of objects: pad to the fullest and mark the real rows.
    for index, (sides, offsets, places) in enumerate(rows):
        own = (index, slice(len(sides)))
        size_of[own], offset_of[own], indices[own], mask[own] = sides, offsets, places, True
    parts = (heatmap, size_of, offset_of, indices, mask)
    return CenterTargets(*(part.to(device, non_blocking=True) for part in parts))


def _draw_gaussians(
    heatmap: torch.Tensor,
    pixels: torch.Tensor,
    sides: torch.Tensor,
    classes: torch.Tensor,
    radius_rule: str,
) -> None:
    """Raise the heat map (K, H, W) of one frame to a Gaussian around each of N pixels (x, y)."""
    _, height, width = heatmap.shape
    whole = sides.ceil().long().tolist()
    radii = torch.tensor([gaussian_radius(w, h, radius_rule) for w, h in whole])
    for radius in radii.unique().tolist():  # one window per radius: few radii, many objects
        own = radii == radius
        steps = torch.arange(-radius, radius + 1)
        sigma = (2 * radius + 1) / 6
        profile = (-(steps.float() ** 2) / (2 * sigma**2)).exp()
        values = (profile[:, None] * profile[None, :]).expand(int(own.sum()), -1, -1)
        x = pixels[own, 0, None, None] + steps[None, None, :]
        y = pixels[own, 1, None, None] + steps[None, :, None]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        # Where Gaussians overlap the higher one wins, so a centre keeps its exact 1.
        flat = (classes[own, None, None] * height + y) * width + x
        heatmap.view(-1).scatter_reduce_(0, flat[inside], values[inside], "amax")
