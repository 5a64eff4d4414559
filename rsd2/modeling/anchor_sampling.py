"""Which anchors of a region proposal network are positive, and which negatives it learns from.

Shapes: A anchors of all levels, N true boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import nonzero_tuple
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances, pairwise_ioa
from detectron2.utils.memory import retry_if_cuda_oom
from torch import nn


class MinimumQualityMatcher(Matcher):
    """Detectron2's matcher, whose best anchor of a box must reach a least overlap.

    With a minimum, a box far smaller than every anchor gets no anchor; without (0), each box
    gets its best one.

    Args:
        thresholds: see Detectron2's ``Matcher``.
        labels: see Detectron2's ``Matcher``.
        min_quality: least IoU of a best anchor below the threshold of positives, in [0, 1];
            the original detector has 0.3.
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], *, min_quality: float = 0.0
    ) -> None:
        super().__init__(list(thresholds), list(labels), allow_low_quality_matches=True)
        self.min_quality = min_quality

    def set_low_quality_matches_(
        self, match_labels: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Make the best anchors of each box positive.

        Args:
            match_labels: (A,) changed in place.
            match_quality_matrix: (N, A) IoU.
        """
        good = match_quality_matrix.amax(dim=1) >= self.min_quality
        super().set_low_quality_matches_(match_labels, match_quality_matrix[good])


class WeightedNegativeRPN(RPN):
    """Detectron2's RPN that prefers negatives which contain an object.

    Source: SSPNet (arXiv 2107.01548), weighted negative sampling: a negative is drawn with a
    probability proportional to exp(w * IoF), IoF = intersection / area of the true box, maximum
    over the boxes. The paper's second term, the anchor's confidence, is zero in its program,
    where the proposal network's anchors have none.

    Args:
        in_features: see Detectron2's ``RPN``, as all arguments but the last.
        head: logits and deltas of each level.
        anchor_generator: anchors of each level.
        anchor_matcher: of anchors with boxes.
        box2box_transform: code of a box in terms of an anchor.
        batch_size_per_image: anchors that are sampled.
        positive_fraction: of them, at most.
        pre_nms_topk: proposals of each level before NMS, (training, test).
        post_nms_topk: proposals of an image after it, (training, test).
        nms_thresh: of proposals.
        min_box_size: pixels; smaller proposals are left out.
        anchor_boundary_thresh: negative: anchors may leave the image.
        loss_weight: of both losses, or of each.
        box_reg_loss_type: "smooth_l1", or another of Detectron2's.
        smooth_l1_beta: 0 is L1.
        overlap_weight: w; 0 draws uniformly, as Detectron2 does.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
        overlap_weight: float = 0.6,
    ) -> None:
        super().__init__(
            in_features=in_features,
            head=head,
            anchor_generator=anchor_generator,
            anchor_matcher=anchor_matcher,
            box2box_transform=box2box_transform,
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            pre_nms_topk=pre_nms_topk,
            post_nms_topk=post_nms_topk,
            nms_thresh=nms_thresh,
            min_box_size=min_box_size,
            anchor_boundary_thresh=anchor_boundary_thresh,
            loss_weight=loss_weight,
            box_reg_loss_type=box_reg_loss_type,
            smooth_l1_beta=smooth_l1_beta,
        )
        self.overlap_weight = overlap_weight

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        """Leave all labels: they are sampled when the boxes are at hand."""
        return label

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match anchors with boxes and sample them.

        Args:
            anchors: of each level.
            gt_instances: with ``gt_boxes`` (N, 4), N >= 0.

        Returns:
            For each image labels (A,) 1, 0 or -1 (not sampled), and matched boxes (A, 4).
        """
        labels, matched = super().label_and_sample_anchors(anchors, gt_instances)
        everything = Boxes.cat(anchors)
        for label, instances in zip(labels, gt_instances):
            self._sample(label, everything, instances.gt_boxes)
        return labels, matched

    def _sample(self, label: torch.Tensor, anchors: Boxes, boxes: Boxes) -> None:
        """Set the labels of anchors that are not sampled to -1, in place."""
        (positive,), (negative,) = nonzero_tuple(label == 1), nonzero_tuple(label == 0)
        num_positive = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        num_negative = min(len(negative), self.batch_size_per_image - num_positive)
        overlap = label.new_zeros(len(negative), dtype=torch.float32)
        if len(boxes) and self.overlap_weight:
            overlap = retry_if_cuda_oom(pairwise_ioa)(anchors[negative], boxes).amax(dim=1)
        chosen = draw_weighted(self.overlap_weight * overlap.to(label.device), num_negative)
        order = torch.randperm(len(positive), device=label.device)[:num_positive]
        label.fill_(-1)
        label[positive[order]] = 1
        label[negative[chosen]] = 0


def draw_weighted(log_weights: torch.Tensor, count: int) -> torch.Tensor:
    """Draw without replacement, each next one in proportion to its weight among those left.

    Source: "Gumbel-top-k" (arXiv 1903.06059), section 3. Unlike ``torch.multinomial`` it has no
    limit of 2^24 elements.

    Args:
        log_weights: (A,) natural logarithms of the weights.
        count: of draws, 0 to A.

    Returns:
        (count,) int64 distinct indices.
    """
    noise = torch.empty_like(log_weights).exponential_().clamp(min=1e-30)
    return (log_weights - noise.log()).topk(count).indices
