"""Loss terms that the field's libraries do not have.

Focal loss and GIoU come from fvcore. Shapes: N positives, A angle bins.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def aspect_ratio_weight(ratios: torch.Tensor) -> torch.Tensor:
    """Weight of a box's angle: the longer the box, the more its angle matters.

    Source: ARS-DETR (arXiv 2303.04989): 2 k / (1 + k).

    Args:
        ratios: (N,) k = long side / short side, >= 1.

    Returns:
        (N,) weights in [1, 2).
    """
    return 2 * ratios / (1 + ratios)


def angle_classification_loss(
    logits: torch.Tensor, targets: torch.Tensor, ratios: torch.Tensor
) -> torch.Tensor:
    """Binary cross entropy against soft angle labels, weighted by the aspect ratio.

    Source: ARS-DETR (arXiv 2303.04989). Soft targets leave a floor above zero: the minimum is
    the entropy of the target.

    Args:
        logits: (N, A).
        targets: (N, A) in [0, 1].
        ratios: (N,) aspect ratios >= 1 of the true boxes.

    Returns:
        Scalar: mean over the bins, sum over the boxes; 0 without boxes.
    """
    per_bin = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (per_bin.mean(dim=1) * aspect_ratio_weight(ratios)).sum()
