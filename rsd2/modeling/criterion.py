"""Matching and losses of the rotated DETR family; this file owns every loss weight.

Shapes: B images, Q queries or tokens, K classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.utils import comm
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch.nn import functional as F
from torchvision.ops import box_convert

from rsd2.ops import max_iou_rotated

from .angle_coder import aspect_ratios
from .losses import angle_classification_loss
from .matcher import HungarianMatcher, Predictions, Targets
from .outputs import Matches

_SAME_OBJECT = 0.5
"""IoU from which on a prediction lies on an object."""


class SetCriterion:
    """Losses of one or more sets of predictions against the objects.

    Source: ARS-DETR (arXiv 2303.04989): focal, L1, GIoU of the unrotated rectangles and the
    aspect-ratio-weighted angle classification, every set with the same weights.

    Args:
        matcher: assigns objects to predictions.
        class_weight: weight of the focal loss.
        l1_weight: weight of the L1 loss over normalised cx, cy, w, h.
        giou_weight: weight of the GIoU loss.
        angle_weight: weight of the angle loss.
        alpha: weight of positives in the focal loss, in [0, 1].
        gamma: focusing exponent of the focal loss, >= 0.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        class_weight: float = 2.0,
        l1_weight: float = 2.0,
        giou_weight: float = 5.0,
        angle_weight: float = 2.0,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.matcher = matcher
        self.weights = {
            "class": class_weight,
            "l1": l1_weight,
            "giou": giou_weight,
            "angle": angle_weight,
        }
        self.alpha, self.gamma = alpha, gamma

    def matched_losses(
        self,
        predictions: Predictions,
        targets: list[Targets],
        normalizer: float,
        suffix: str = "",
        class_agnostic: bool = False,
    ) -> tuple[dict[str, torch.Tensor], Matches]:
        """Match, then compute the weighted losses.

        A prediction on an object that the targets leave out is not taught to be background.

        Args:
            predictions: predictions of B images.
            targets: objects, one entry per image.
            normalizer: divisor of the sums over positives, > 0.
            suffix: appended to the names of the losses.
            class_agnostic: objects of any class are class 0 (first stage).

        Returns:
            Losses by name, and the matches they were computed with.
        """
        if class_agnostic:
            targets = [replace(t, labels=torch.zeros_like(t.labels)) for t in targets]
        matches = self.matcher(predictions, targets)
        ignored = find_left_out(predictions, targets, matches)
        return self.losses(predictions, targets, matches, normalizer, suffix, ignored), matches

    def losses(
        self,
        predictions: Predictions,
        targets: list[Targets],
        matches: Matches,
        normalizer: float,
        suffix: str = "",
        ignored: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted losses for given matches.

        Args:
            predictions: predictions of B images.
            targets: objects, one entry per image.
            matches: for every image (prediction indices, object indices).
            normalizer: divisor of the sums over positives, > 0.
            suffix: appended to the names of the losses.
            ignored: (B, Q) bool, predictions that enter no loss.

        Returns:
            ``loss_class``, ``loss_l1``, ``loss_giou`` and ``loss_angle`` + suffix; scalars that
            are 0 but attached to the graph when there is no object.
        """
        # Flat lists of all matched pairs: image, prediction and the object's targets.
        batch = torch.cat([torch.full_like(src, i) for i, (src, _) in enumerate(matches)])
        source = torch.cat([src for src, _ in matches])
        boxes = torch.cat([t.boxes[dst] for t, (_, dst) in zip(targets, matches)]).float()
        labels = torch.cat([t.labels[dst] for t, (_, dst) in zip(targets, matches)])
        angles = torch.cat([t.angle_targets[dst] for t, (_, dst) in zip(targets, matches)])

        # Every prediction is a target of the focal loss, an unmatched one as background.
        class_targets = torch.zeros_like(predictions.class_logits)
        class_targets[batch, source, labels] = 1.0
        focal = sigmoid_focal_loss(
            predictions.class_logits, class_targets, self.alpha, self.gamma, reduction="none"
        )
        if ignored is not None:
            focal = focal.masked_fill(ignored[..., None], 0.0)

        # Boxes and angles learn from the matched predictions alone.
        predicted = predictions.boxes[batch, source]
        values = {
            "class": focal.sum(),
            "l1": F.l1_loss(predicted, boxes[:, :4], reduction="sum"),
            "giou": giou_loss(
                box_convert(predicted, "cxcywh", "xyxy"),
                box_convert(boxes[:, :4], "cxcywh", "xyxy"),
                reduction="sum",
            ),
            "angle": angle_classification_loss(
                predictions.angle_logits[batch, source], angles.float(), aspect_ratios(boxes)
            ),
        }

        return {
            f"loss_{name}{suffix}": value * self.weights[name] / normalizer
            for name, value in values.items()
        }


@torch.no_grad()
def find_left_out(
    predictions: Predictions, targets: list[Targets], matches: Matches
) -> torch.Tensor | None:
    """Find unmatched predictions on objects that the targets leave out.

    Args:
        predictions: predictions of B images.
        targets: objects, one entry per image.
        matches: for every image (prediction indices, object indices).

    Returns:
        (B, Q) bool, whether the unrotated rectangle has an IoU of 0.5 or more with that of such an
        object, as the GIoU loss compares them; None if nothing is left out.
    """
    if all(target.left_out is None for target in targets):
        return None

    found = torch.zeros_like(predictions.boxes[..., 0], dtype=torch.bool)
    for row, boxes, target, (matched, _) in zip(found, predictions.boxes, targets, matches):
        if target.left_out is None:
            continue
        # The operator takes an angle behind the four numbers; 0 keeps the rectangles upright.
        rectangles = (F.pad(x.float(), (0, 1)) for x in (boxes, target.left_out))
        row |= max_iou_rotated(*rectangles).row_max >= _SAME_OBJECT
        row[matched] = False
    return found


def global_normalizers(num_positives: list[int], device: torch.device) -> list[float]:
    """Average numbers of positives over the processes; each total counts as at least one.

    Dividing summed losses by these makes the gradient that distributed training averages equal
    to the gradient of one process with the whole batch. All counts travel in one reduction that
    every process makes, whatever its images hold: a process without objects must not make fewer.

    Args:
        num_positives: counts of this process, one per normaliser.
        device: device of the reduction, as the backend needs it.

    Returns:
        max(total, 1) / number of processes, for each.
    """
    world = comm.get_world_size()
    totals = torch.tensor(num_positives, dtype=torch.float64, device=device)
    if world > 1:
        torch.distributed.all_reduce(totals)
    return (totals.clamp(min=1.0) / world).tolist()
