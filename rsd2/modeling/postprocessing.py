"""From the last decoder layer to detections in the original image.

Shapes: B images, Q queries, K classes, D detections.
"""

from __future__ import annotations

import torch
from detectron2.structures import Instances, RotatedBoxes

from rsd2.ops import batched_nms_rotated
from rsd2.structures import canonicalize

from .angle_coder import AngleCoder
from .matcher import Predictions


class DetectionPostprocessor:
    """Pick the best (query, class) pairs and return them as rotated boxes.

    Source: Deformable DETR (arXiv 2010.04159): top k over queries x classes, without NMS.

    Args:
        angle_coder: turns angle logits into degrees.
        max_detections: k per image.
        score_threshold: detections with a lower score are dropped, [0, 1]; not those that are not
            finite.
        nms_threshold: rotated NMS per class at this IoU; None for none.
    """

    def __init__(
        self,
        angle_coder: AngleCoder,
        max_detections: int = 300,
        score_threshold: float = 0.0,
        nms_threshold: float | None = None,
    ) -> None:
        self.angle_coder = angle_coder
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold

    def top_detections(
        self, predictions: Predictions, image: int, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Best pairs of one image, boxes as the heads give them (w may be the short side).

        Args:
            predictions: of B images.
            image: index in the batch.
            scale: (4,) pixels of one unit of cx, cy, w, h.

        Returns:
            boxes (D, 5) in pixels of the network's input, scores (D,) decreasing, classes (D,).
        """
        probabilities = predictions.class_logits[image].sigmoid()
        num_classes = probabilities.shape[1]
        k = min(self.max_detections, probabilities.numel())
        scores, index = probabilities.flatten().topk(k)
        query = torch.div(index, num_classes, rounding_mode="floor")
        boxes = predictions.boxes[image, query] * scale
        angles = self.angle_coder.decode(predictions.angle_logits[image, query])
        return torch.cat([boxes, angles[:, None]], dim=1), scores, index % num_classes

    def __call__(
        self,
        predictions: Predictions,
        image: int,
        scale: torch.Tensor,
        input_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """Detections of one image in the frame of its dataset dict.

        Args:
            predictions: of B images.
            image: index in the batch.
            scale: (4,) pixels of one unit of cx, cy, w, h.
            input_size: (height, width) of the network's input without padding.
            output_size: (height, width) of the original image.

        Returns:
            Instances with ``pred_boxes`` (RotatedBoxes, canonical), ``scores``, ``pred_classes``,
            by decreasing score. Those that are not finite come last; they stay, so that whoever
            uses the others can count them.
        """
        boxes, scores, classes = self.top_detections(predictions, image, scale)

        # Every comparison with NaN is false: a threshold alone would drop all that a diverged
        # model says, and an image on which it fails would look empty.
        is_finite = scores.isfinite() & boxes.isfinite().all(dim=1)
        keep = is_finite & (scores >= self.score_threshold) & (boxes[:, 2:4] > 0).all(dim=1)
        kept = keep.nonzero().flatten()
        if self.nms_threshold is not None:
            nms = batched_nms_rotated(boxes[kept], scores[kept], classes[kept], self.nms_threshold)
            kept = kept[nms]
        kept = torch.cat([kept, (~is_finite).nonzero().flatten()])
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]

        rotated = RotatedBoxes(boxes)
        rotated.scale(output_size[1] / input_size[1], output_size[0] / input_size[0])
        return Instances(
            output_size,
            pred_boxes=RotatedBoxes(canonicalize(rotated.tensor)),
            scores=scores,
            pred_classes=classes,
        )
