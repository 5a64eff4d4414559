"""Turn the outputs of the last decoder layer into detections in the original image.

Shapes: B images, Q queries, K classes, D detections.
"""

from __future__ import annotations

import torch
from detectron2.structures import Instances, RotatedBoxes

from rsd2.ops import batched_nms_rotated
from rsd2.structures import canonicalize

from .angle_coder import AngleCoder
from .matcher import Predictions


def best_pairs(
    probabilities: torch.Tensor, max_detections: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose the most probable (query, class) pairs.

    Args:
        probabilities: (..., Q, K) in [0, 1].
        max_detections: wanted number; D is this number, or Q x K if that is less.

    Returns:
        scores (..., D) decreasing, queries (..., D) and classes (..., D), int64.
    """
    num_queries, num_classes = probabilities.shape[-2:]

    # Over the flat list of pairs, so that one query may win with several classes.
    scores, index = probabilities.flatten(-2).topk(min(max_detections, num_queries * num_classes))
    query = torch.div(index, num_classes, rounding_mode="floor")
    return scores, query, index % num_classes


def finish_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    score_threshold: float = 0.0,
    nms_threshold: float | None = None,
) -> Instances:
    """Drop weak, empty and double detections, and scale the rest to the original image.

    Args:
        boxes: (D, 5) in pixels of the network's input; w may be the short side.
        scores: (D,) decreasing.
        classes: (D,).
        input_size: (height, width) of the network's input without padding.
        output_size: (height, width) of the original image.
        score_threshold: detections with a lower score are dropped, [0, 1].
        nms_threshold: rotated NMS per class at this IoU; None applies no NMS.

    Returns:
        Instances with ``pred_boxes`` (RotatedBoxes, canonical), ``scores``, ``pred_classes``,
        by decreasing score. Detections that are not finite come last; they stay, so that a caller
        can count them.
    """
    # Every comparison with NaN is false: a threshold alone would drop all outputs of a diverged
    # model, and the image would look empty.
    is_finite = scores.isfinite() & boxes.isfinite().all(dim=1)
    keep = is_finite & (scores >= score_threshold) & (boxes[:, 2:4] > 0).all(dim=1)
    kept = keep.nonzero().flatten()

    if nms_threshold is not None:
        kept = kept[batched_nms_rotated(boxes[kept], scores[kept], classes[kept], nms_threshold)]

    # Last, because a score of NaN has no place in the order.
    kept = torch.cat([kept, (~is_finite).nonzero().flatten()])
    boxes, scores, classes = boxes[kept], scores[kept], classes[kept]

    # Unequal factors turn and shear a box; Detectron2 keeps it a rectangle.
    rotated = RotatedBoxes(boxes)
    rotated.scale(output_size[1] / input_size[1], output_size[0] / input_size[0])
    return Instances(
        output_size,
        pred_boxes=RotatedBoxes(canonicalize(rotated.tensor)),
        scores=scores,
        pred_classes=classes,
    )


class DetectionPostprocessor:
    """Pick the best (query, class) pairs and return them as rotated boxes.

    Source: Deformable DETR (arXiv 2010.04159): top k over queries x classes, without NMS.

    Args:
        angle_coder: turns angle logits into degrees.
        max_detections: k, number of detections per image.
        score_threshold: lowest score of a kept detection, [0, 1]; detections that are not finite
            are kept.
        nms_threshold: rotated NMS per class at this IoU; None applies no NMS.
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
        """Return the best pairs of one image; w of a box may still be its short side.

        Args:
            predictions: predictions of B images.
            image: index in the batch.
            scale: (4,) pixels per unit of cx, cy, w, h.

        Returns:
            boxes (D, 5) in pixels of the network's input, scores (D,) decreasing, classes (D,).
        """
        # One query may be chosen with several classes, each a detection of its own.
        probabilities = predictions.class_logits[image].sigmoid()
        scores, query, classes = best_pairs(probabilities, self.max_detections)

        boxes = predictions.boxes[image, query] * scale
        angles = self.angle_coder.decode(predictions.angle_logits[image, query])
        return torch.cat([boxes, angles[:, None]], dim=1), scores, classes

    def __call__(
        self,
        predictions: Predictions,
        image: int,
        scale: torch.Tensor,
        input_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """Return the detections of one image in the frame of its dataset dict.

        Args:
            predictions: predictions of B images.
            image: index in the batch.
            scale: (4,) pixels per unit of cx, cy, w, h.
            input_size: (height, width) of the network's input without padding.
            output_size: (height, width) of the original image.

        Returns:
            Instances with ``pred_boxes`` (RotatedBoxes, canonical), ``scores``, ``pred_classes``,
            by decreasing score. Detections that are not finite come last; they stay, so that a
            caller can count them.
        """
        return finish_detections(
            *self.top_detections(predictions, image, scale),
            input_size,
            output_size,
            self.score_threshold,
            self.nms_threshold,
        )
