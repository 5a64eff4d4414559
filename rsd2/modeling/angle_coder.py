"""Angles as classes: the aspect-ratio-aware circular smooth label.

Shapes: N boxes, A = 180 bins of one degree. Bin i covers the angles [i - 90, i - 89) degrees,
counter-clockwise on screen.
"""

from __future__ import annotations

import torch


def iou_of_turned_copy(aspect_ratios: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Compute the IoU of a k:1 box with itself turned about its centre.

    Source: ARS-DETR (arXiv 2303.04989), aspect-ratio-aware smooth label; the closed form of the
    overlap of two congruent rectangles with a common centre.

    Args:
        aspect_ratios: (N,) k = long side / short side, >= 1.
        degrees: (D,) angles in [-90, 90].

    Returns:
        (N, D) IoU in (0, 1].
    """
    k = aspect_ratios[:, None]

    # Only the limit exists at 0 degrees; 1e-6 keeps the divisions finite.
    alpha = torch.deg2rad(degrees.abs()).clamp(min=1e-6)[None]
    critical = (2 * (90 - torch.rad2deg(torch.atan(k)))).floor()

    # Above the critical angle the overlap is a parallelogram, below it an octagon.
    crossed = 4 / (8 * k * alpha.sin() - 4)
    u = (1 - k * (alpha / 2).tan()) * alpha.tan()
    v = (k * alpha.sin() - 2 * (alpha / 2).sin() ** 2) / alpha.cos()
    corners = u**2 + v**2
    octagon = (4 * k * alpha.tan() - corners) / (4 * k * alpha.tan() + corners)

    iou = torch.where(degrees.abs()[None] > critical, crossed, octagon)
    # The limit, which 1e-6 misses by half a percent for the longest boxes.
    return iou.masked_fill(degrees == 0, 1.0)


class AngleCoder:
    """Turn angles into soft circular class targets, and class scores back into angles.

    Source: ARS-DETR (arXiv 2303.04989): the target of a bin is the IoU that the box would have
    with itself turned to that bin, so the width of the window follows from the aspect ratio.

    Args:
        num_bins: A; one bin is 180 / A degrees.
    """

    def __init__(self, num_bins: int = 180) -> None:
        if num_bins != 180:
            raise ValueError(
                f"num_bins must be 180 (one-degree bins, as the smooth label defines), "
                f"got {num_bins}"
            )
        self.num_bins = num_bins

    def smooth_label(self, aspect_ratios: torch.Tensor) -> torch.Tensor:
        """Compute the target of every offset from the true bin, before it is placed on the circle.

        Args:
            aspect_ratios: (N,) long side / short side, >= 1.

        Returns:
            (N, A) for the offsets -90, ..., 89 degrees, in [0, 1], 1 at offset 0.
        """
        offsets = torch.arange(-90, 90, dtype=torch.float64, device=aspect_ratios.device)
        iou = iou_of_turned_copy(aspect_ratios.double(), offsets)

        # Stretched to [0, 1]: a nearly square box would otherwise have high targets everywhere.
        lowest = iou.min(dim=1, keepdim=True).values
        return ((iou - lowest) / (1 - lowest)).to(aspect_ratios.dtype)

    def encode(self, boxes: torch.Tensor) -> torch.Tensor:
        """Compute the soft class targets of boxes.

        Args:
            boxes: (N, 5) cx, cy, w, h, angle; w and h in one unit, angle in degrees
                counter-clockwise, w the long side; sides that are not positive count as 1e-6.

        Returns:
            (N, A) targets in [0, 1]; the bin that holds the angle has target 1.
        """
        label = self.smooth_label(aspect_ratios(boxes))

        start = torch.floor(boxes[:, 4] + 90).long() % self.num_bins
        bins = torch.arange(self.num_bins, device=boxes.device)
        # Offset d stands in column d + 90 of the label and belongs in bin (start + d) mod A.
        columns = (bins[None] - start[:, None] + self.num_bins // 2) % self.num_bins
        return label.gather(1, columns)

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the angle of the best bin.

        Args:
            logits: (..., A) scores.

        Returns:
            (...) degrees, counter-clockwise, middle of the bin: -89.5, ..., 89.5; float32.
        """
        return logits.argmax(dim=-1).float() + 0.5 - 90


def aspect_ratios(boxes: torch.Tensor) -> torch.Tensor:
    """Compute long side over short side, capped where a side is zero.

    Args:
        boxes: (N, 5) or (N, 4) cx, cy, w, h, ...

    Returns:
        (N,) ratios in [1, 1e4].
    """
    sides = boxes[:, 2:4].clamp(min=1e-6)
    ratio = sides.max(dim=1).values / sides.min(dim=1).values
    return ratio.clamp(max=1e4)
