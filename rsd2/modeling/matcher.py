"""One-to-one assignment of predictions to objects.

Shapes: Q predictions, N objects of one image, K classes, A angle bins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou

from .angle_coder import aspect_ratios
from .losses import aspect_ratio_weight
from .quirks import NO_QUIRKS, DetectorQuirks


@dataclass
class Targets:
    """Objects of one image in the units of the detector.

    Attributes:
        labels: (N,) int64 classes in [0, K).
        boxes: (N, 5) cx, cy, w, h in normalised box coordinates, angle in degrees
            counter-clockwise; canonical (w >= h).
        angle_targets: (N, A) soft angle labels in [0, 1].
        left_out: (M, 4) cx, cy, w, h of objects that are no targets here, and no background either.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    angle_targets: torch.Tensor
    left_out: torch.Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Predictions:
    """Output of the heads for a batch of queries or tokens.

    Attributes:
        class_logits: (B, Q, K).
        boxes: (B, Q, 4) cx, cy, w, h in [0, 1], normalised box coordinates.
        angle_logits: (B, Q, A).
    """

    class_logits: torch.Tensor
    boxes: torch.Tensor
    angle_logits: torch.Tensor


def focal_cost(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Focal loss that a prediction would save by being matched to a class.

    Source: Deformable DETR (arXiv 2010.04159), matching cost.

    Args:
        logits: (Q, K) float32.
        labels: (N,) classes.
        alpha: weight of positives in [0, 1].
        gamma: focusing exponent, >= 0.

    Returns:
        (Q, N) costs.
    """
    # Columns first: K can be 256 and Q 21,760.
    logits = logits[:, labels]
    p = logits.sigmoid()
    positive = -F.logsigmoid(logits) * (1 - p) ** gamma * alpha
    negative = -F.logsigmoid(-logits) * p**gamma * (1 - alpha)
    return positive - negative


def angle_cost(logits: torch.Tensor, targets: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """Angle classification loss of every pair, as one matrix product.

    BCE(x, t) = softplus(x) - x t, so the pairs need no (Q, N, A) tensor.

    Args:
        logits: (Q, A) float32.
        targets: (N, A) soft labels.
        ratios: (N,) aspect ratios of the objects.

    Returns:
        (Q, N) mean binary cross entropy over the bins times the aspect-ratio weight.
    """
    pairs = F.softplus(logits).sum(dim=1, keepdim=True) - logits @ targets.T
    return pairs / logits.shape[1] * aspect_ratio_weight(ratios)


class HungarianMatcher:
    """Match every object to one prediction so that the summed cost is smallest.

    Source: DETR (arXiv 2005.12872), equation 1, with the costs of ARS-DETR (arXiv 2303.04989).

    Args:
        class_weight: weight of the focal cost.
        l1_weight: weight of the L1 distance of (cx, cy, w, h), normalised.
        giou_weight: weight of the negative generalised IoU of the unrotated rectangles.
        angle_weight: weight of the aspect-ratio-weighted angle cost.
        alpha: weight of positives in the focal cost, in [0, 1].
        gamma: focusing exponent of the focal cost, >= 0.
        quirks: ``mixed_l1_formats`` is read from them.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        l1_weight: float = 2.0,
        giou_weight: float = 5.0,
        angle_weight: float = 2.0,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        quirks: DetectorQuirks = NO_QUIRKS,
    ) -> None:
        self.class_weight, self.l1_weight = class_weight, l1_weight
        self.giou_weight, self.angle_weight = giou_weight, angle_weight
        self.alpha, self.gamma = alpha, gamma
        self.quirks = quirks

    @torch.no_grad()
    def cost_matrix(
        self,
        class_logits: torch.Tensor,
        boxes: torch.Tensor,
        angle_logits: torch.Tensor,
        targets: Targets,
    ) -> torch.Tensor:
        """Compute the weighted cost of every pair of one image.

        Args:
            class_logits: (Q, K).
            boxes: (Q, 4) cx, cy, w, h, normalised.
            angle_logits: (Q, A).
            targets: N objects.

        Returns:
            (Q, N) float32.
        """
        # Costs differ in digits that half precision does not have.
        with torch.autocast(boxes.device.type, enabled=False):
            return self._cost_matrix(class_logits, boxes, angle_logits, targets)

    def _cost_matrix(
        self,
        class_logits: torch.Tensor,
        boxes: torch.Tensor,
        angle_logits: torch.Tensor,
        targets: Targets,
    ) -> torch.Tensor:
        boxes, true_boxes = boxes.float(), targets.boxes[:, :4].float()
        corners = box_convert(boxes, "cxcywh", "xyxy")
        true_corners = box_convert(true_boxes, "cxcywh", "xyxy")

        cost = self.class_weight * focal_cost(
            class_logits.float(), targets.labels, self.alpha, self.gamma
        )

        compared = corners if self.quirks.mixed_l1_formats else boxes
        cost += self.l1_weight * torch.cdist(compared, true_boxes, p=1)

        cost -= self.giou_weight * generalized_box_iou(corners, true_corners)

        cost += self.angle_weight * angle_cost(
            angle_logits.float(), targets.angle_targets.float(), aspect_ratios(true_boxes)
        )
        return cost

    def __call__(
        self, predictions: Predictions, targets: list[Targets]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Assign the objects of every image.

        Args:
            predictions: predictions of B images.
            targets: objects, one entry per image.

        Returns:
            For every image (prediction indices, object indices), int64, min(Q, N) each.

        Raises:
            FloatingPointError: a cost is not finite, which means that the predictions diverged.
            ValueError: a true box is not finite.
        """
        matches = []
        for image, target in enumerate(targets):
            if len(target) == 0:
                empty = torch.empty(0, dtype=torch.int64, device=target.labels.device)
                matches.append((empty, empty))
                continue

            cost = self.cost_matrix(
                predictions.class_logits[image],
                predictions.boxes[image],
                predictions.angle_logits[image],
                target,
            ).cpu()
            # scipy refuses NaN without saying whether the data or the model is to blame.
            if not torch.isfinite(cost).all():
                if not torch.isfinite(target.boxes).all():
                    raise ValueError(
                        f"an object of image {image} of the batch has a box that is not finite; "
                        "check the annotations and augmentations"
                    )
                raise FloatingPointError(
                    f"matching cost of image {image} of the batch is not finite: the predictions "
                    "diverged; lower the learning rate or clip gradients (train.clip_grad)"
                )

            rows, columns = linear_sum_assignment(cost.numpy())
            device = target.labels.device
            matches.append(
                (torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device))
            )
        return matches
