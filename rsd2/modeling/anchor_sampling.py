"""Choice of the positive and negative anchors of a region proposal network.

Anchors are compared with boxes in portions, because the table of all pairs can exceed the memory:
2000 people in a crowd and the 330,000 anchors of a picture of 640 x 512 pixels would
need several times 2.6 GB.

Shapes: A anchors of all levels, P anchors of a portion, N true boxes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from detectron2.layers import nonzero_tuple
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import (
    Boxes,
    Instances,
    RotatedBoxes,
    pairwise_ioa,
    pairwise_iou,
)
from torch import nn

from rsd2.ops import box_iou_rotated

# Number of (anchor, box) pairs that are compared at once.
PORTION_PAIRS = 2**21


class MinimumQualityMatcher(Matcher):
    """Detectron2's matcher in bounded memory, with a minimum overlap for a box's best anchor.

    With a minimum, a box far smaller than every anchor gets no anchor. With 0, each box
    that meets an anchor gets its best one. A box that meets no anchor gets none; Detectron2's
    matcher would make all anchors positive for it.

    Args:
        thresholds: see Detectron2's ``Matcher``.
        labels: see Detectron2's ``Matcher``.
        min_quality: lowest IoU of a best anchor below the threshold of positives, in [0, 1];
            the original detector has 0.3.
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], *, min_quality: float = 0.0
    ) -> None:
        super().__init__(list(thresholds), list(labels), allow_low_quality_matches=True)
        self.min_quality = min_quality

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Match anchors with boxes by an existing table of IoU.

        Args:
            match_quality_matrix: (N, A) IoU.

        Returns:
            The same two tensors as `match`.

        Raises:
            ValueError: an IoU is NaN.
        """
        if match_quality_matrix.isnan().any():
            raise ValueError("the IoU of an anchor and a box is not a number")

        table = match_quality_matrix
        like = table.new_empty(table.shape[1])
        return self._match(len(table), like, lambda index: table[:, index])

    def match(self, boxes: Boxes, anchors: Boxes) -> tuple[torch.Tensor, torch.Tensor]:
        """Match anchors with boxes without the table of all pairs.

        Args:
            boxes: (N, 4) true boxes or (N, 5) rotated ones, N >= 0.
            anchors: (A, 4) or (A, 5) of the same kind, on the same device.

        Returns:
            (A,) int64 index of the box with the greatest IoU, 0 without boxes, and (A,) int8 label
            of every anchor.
        """

        def overlaps(index: slice | torch.Tensor) -> torch.Tensor:
            if isinstance(boxes, RotatedBoxes):
                return box_iou_rotated(boxes.tensor, anchors.tensor[index])
            return pairwise_iou(boxes, anchors[index])

        return self._match(len(boxes), anchors.tensor[:, 0], overlaps)

    def _match(
        self,
        num_boxes: int,
        like: torch.Tensor,
        quality_of: Callable[[slice | torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run :meth:`match` on IoU (N, P) of chosen anchors; ``like`` (A,) has the IoU's dtype.

        Tensors that outlive a portion are allocated before the first one: those made between the
        portions would keep the memory of each portion from being reused.
        """
        value, best = torch.zeros_like(like), like.new_zeros(num_boxes)
        match = torch.zeros_like(value, dtype=torch.int64)
        may_lead = torch.zeros_like(value, dtype=torch.bool)

        for portion in portions_of(len(value), num_boxes):
            quality = quality_of(portion)
            value[portion], match[portion] = quality.max(dim=0)
            torch.maximum(best, quality.amax(dim=1), out=best)
            # The best anchor of a box in this portion may be beaten in another one.
            may_lead[portion] = ((quality == best[:, None]) & (best > 0)[:, None]).any(dim=0)

        # Detectron2 pads its thresholds with -inf and inf, which are no boundaries of bins.
        bins = torch.bucketize(value, value.new_tensor(self.thresholds[1:-1]), right=True)
        labels = torch.tensor(self.labels, dtype=torch.int8, device=value.device)[bins]

        # Only now the best IoU of each box is known: visit the candidates again.
        is_good = (best > 0) & (best >= self.min_quality)
        (candidates,) = nonzero_tuple(may_lead)
        for portion in portions_of(len(candidates), num_boxes):
            chosen = candidates[portion]
            # Compared with ==, because the same pairs give the same IoU in any portion.
            leads = (quality_of(chosen) == best[:, None]) & is_good[:, None]
            labels[chosen[leads.any(dim=0)]] = 1

        return match, labels


def portions_of(num_anchors: int, num_boxes: int) -> Iterator[slice]:
    """Cut anchors into portions that make at most `PORTION_PAIRS` pairs with the boxes.

    Args:
        num_anchors: A, >= 0.
        num_boxes: number of boxes that the anchors meet, >= 0; 0 gives no portion.

    Yields:
        Consecutive slices of [0, A).
    """
    if num_boxes == 0:
        return

    size = max(1, PORTION_PAIRS // num_boxes)
    for start in range(0, num_anchors, size):
        yield slice(start, start + size)


class BoundedMemoryRPN(RPN):
    """Detectron2's RPN, but it matches anchors with boxes in portions; it takes the same arguments.

    Its ``anchor_matcher`` must be a `MinimumQualityMatcher`.
    """

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match anchors with boxes and sample them.

        Args:
            anchors: anchors of each level.
            gt_instances: objects of each image, with ``gt_boxes`` (N, 4), or (N, 5) rotated ones,
                N >= 0.

        Returns:
            For each image labels (A,) 1, 0 or -1 (not sampled), and matched boxes like anchors.
        """
        everything = type(anchors[0]).cat(anchors)
        labels, matched = [], []
        for instances in gt_instances:
            boxes = instances.gt_boxes
            index, label = self.anchor_matcher.match(boxes, everything)
            # Negative thresholds keep the anchors that leave the image.
            if self.anchor_boundary_thresh >= 0:
                size, margin = instances.image_size, self.anchor_boundary_thresh
                label[~everything.inside_box(size, margin)] = -1

            labels.append(self._sample(label, everything, boxes))
            found = boxes.tensor[index] if len(boxes) else torch.zeros_like(everything.tensor)
            matched.append(found)
        return labels, matched

    def _sample(self, label: torch.Tensor, anchors: Boxes, boxes: Boxes) -> torch.Tensor:
        """Return the labels (A,), -1 for every anchor that is not sampled."""
        return self._subsample_labels(label)


class WeightedNegativeRPN(BoundedMemoryRPN):
    """An RPN that prefers negatives which contain an object.

    Source: SSPNet (arXiv 2107.01548), weighted negative sampling: a negative is drawn with a
    probability proportional to exp(w * IoF), where IoF = intersection / area of the true box,
    maximum over the boxes. The paper's second term, the anchor's confidence, is zero in its
    program, whose anchors have no confidence in the proposal network.

    Args:
        in_features: see Detectron2's ``RPN``, as all arguments but the last.
        head: head that predicts logits and deltas of each level.
        anchor_generator: generator of the anchors of each level.
        anchor_matcher: matcher of anchors with boxes.
        box2box_transform: code of a box in terms of an anchor.
        batch_size_per_image: number of anchors sampled in an image.
        positive_fraction: largest share of positives among them, in [0, 1].
        pre_nms_topk: number of proposals of each level before NMS, (training, test).
        post_nms_topk: number of proposals of an image after NMS, (training, test).
        nms_thresh: IoU above which NMS drops a proposal.
        min_box_size: shortest side of a proposal, pixels; smaller ones are dropped.
        anchor_boundary_thresh: margin, pixels; if negative, anchors may leave the image.
        loss_weight: weight of both losses, or a dict with one for each.
        box_reg_loss_type: "smooth_l1", or another of Detectron2's.
        smooth_l1_beta: where the loss turns from quadratic to linear; 0 is L1.
        overlap_weight: w; 0 draws uniformly, as Detectron2 does.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: MinimumQualityMatcher,
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

    def _sample(self, label: torch.Tensor, anchors: Boxes, boxes: Boxes) -> torch.Tensor:
        (positive,), (negative,) = nonzero_tuple(label == 1), nonzero_tuple(label == 0)
        num_positive = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        num_negative = min(len(negative), self.batch_size_per_image - num_positive)

        # Only negatives need overlaps, computed in portions like the matching.
        overlap = label.new_zeros(len(negative), dtype=torch.float32)
        if self.overlap_weight:
            for portion in portions_of(len(negative), len(boxes)):
                shares = pairwise_ioa(anchors[negative[portion]], boxes)
                overlap[portion] = shares.amax(dim=1)

        chosen = draw_weighted(self.overlap_weight * overlap, num_negative)
        order = torch.randperm(len(positive), device=label.device)[:num_positive]

        label.fill_(-1)
        label[positive[order]] = 1
        label[negative[chosen]] = 0
        return label


def draw_weighted(log_weights: torch.Tensor, count: int) -> torch.Tensor:
    """Draw without replacement, each next one in proportion to its weight among those left.

    Source: "Gumbel-top-k" (arXiv 1903.06059), section 3. Unlike ``torch.multinomial`` it has no
    limit of 2^24 elements.

    Args:
        log_weights: (A,) natural logarithms of the weights.
        count: number of draws, 0 to A.

    Returns:
        (count,) int64 distinct indices.
    """
    # Minus the logarithm of exponential noise is Gumbel noise; the clamp avoids log(0).
    noise = torch.empty_like(log_weights).exponential_().clamp(min=1e-30)
    return (log_weights - noise.log()).topk(count).indices
