"""Losses of centre heads: a focal loss of the peaks, and L1 of size and offset at the centres.

Shapes: B frames, K classes, N objects of the fullest frame, H, W height and width of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .center_targets import CenterTargets

_PROBABILITY_FLOOR = 1e-4


def center_losses(
    outputs: Mapping[str, torch.Tensor], targets: CenterTargets
) -> dict[str, torch.Tensor]:
    """Compute the three losses, not yet weighted.

    Source: CenterNet (arXiv 1904.07850), equations 1 to 3; the official weights are 1, 0.1 and 1.
    Every loss is normalised over the whole batch of this process.

    Args:
        outputs: ``hm`` (B, K, H, W) logits, ``wh`` and ``reg`` (B, 2, H, W), in pixels.
        targets: targets of the same frames.

    Returns:
        ``loss_heatmap``, ``loss_size`` and ``loss_offset``, scalars; without any object the last
        two are 0 (with a gradient of 0) and the first is the sum over all pixels.
    """
    return {
        "loss_heatmap": heatmap_loss(outputs["hm"], targets.heatmap),
        "loss_size": _loss_at_centers(outputs["wh"], targets.size, targets),
        "loss_offset": _loss_at_centers(outputs["reg"], targets.offset, targets),
    }


def heatmap_loss(logits: torch.Tensor, heatmap: torch.Tensor) -> torch.Tensor:
    """Focal loss whose negatives count less the nearer they are to a centre.

    Source: CenterNet (arXiv 1904.07850), equation 1, with alpha 2 and beta 4. Probabilities are
    kept in [1e-4, 1 - 1e-4], as in the official program: a logit beyond gets no gradient.

    Args:
        logits: (B, K, H, W).
        heatmap: (B, K, H, W) in [0, 1], 1 at the centres.

    Returns:
        Scalar: the sum over the pixels, divided by the number of centre pixels if there are any.
    """
    probability = logits.sigmoid().clamp(_PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    # Exact comparison on purpose: the drawing writes 1 to centres and less everywhere else.
    centers = heatmap == 1
    positive = (1 - probability) ** 2 * probability.log()
    negative = (1 - heatmap) ** 4 * probability**2 * (1 - probability).log()
    return -torch.where(centers, positive, negative).sum() / centers.sum().clamp(min=1)


def _loss_at_centers(
    prediction: torch.Tensor, target: torch.Tensor, targets: CenterTargets
) -> torch.Tensor:
    """Mean absolute error over the coordinates (B, N, 2) of a map (B, 2, H, W)."""
    indices = targets.indices[:, None].expand(-1, prediction.shape[1], -1)
    found = prediction.flatten(2).gather(2, indices).transpose(1, 2)
    # Indexing by the mask would make the CPU wait for the GPU to count the objects.
    mask = targets.mask[:, :, None].expand_as(found)
    errors = torch.where(mask, (found - target).abs(), 0)
    return errors.sum() / (mask.sum() + 1e-4)  # the official guard against no object
