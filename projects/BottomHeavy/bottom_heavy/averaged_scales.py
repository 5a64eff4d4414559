"""Test-time averaging over scales, as the released bottom-heavy detector is tested.

All scales judge the same proposals, so their boxes and class scores can be averaged one by one.
That differs from testing each scale alone and merging the detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch.nn import functional
from torchvision.ops import nms


def detect_at_scales(
    model: GeneralizedRCNN, one: dict[str, Any], sizes: Sequence[tuple[int, int]]
) -> dict[str, Instances]:
    """Detect the objects of an image at several scales and average boxes and class scores.

    Source: the released program of arXiv 2303.11267: whole images at (1024, 1280) and
    (1536, 1920), the proposals of both merged by NMS, one suppression at the end.

    Args:
        model: Faster R-CNN of upright boxes with ``StandardROIHeads``, in evaluation mode.
        one: input with ``image`` (3, H, W) 0-255, and ``height`` and ``width`` of the original
            image (default: the size of ``image``).
        sizes: (short, long) side in pixels that bound each scale; the aspect ratio is kept.

    Returns:
        ``{"instances": Instances}`` in the frame of the original image.
    """
    image = one["image"].to(model.device, torch.float32)
    shape = (image.shape[-2], image.shape[-1])
    factors = [min(short / min(shape), long / max(shape)) for short, long in sizes]
    views = [_resize(image, factor) for factor in factors]

    features, found = [], []
    for view, factor in zip(views, factors):
        images = model.preprocess_image([{"image": view}])
        features.append(model.backbone(images.tensor))
        (proposals,), _ = model.proposal_generator(images, features[-1], None)
        found.append((proposals.proposal_boxes.tensor / factor, proposals.objectness_logits))
    boxes = _merge_proposals(model, *(torch.cat(parts) for parts in zip(*found)))

    heads = model.roi_heads
    all_boxes, all_scores = [], []
    for maps, view, factor in zip(features, views, factors):
        proposals = Instances((view.shape[-2], view.shape[-1]))
        proposals.proposal_boxes = Boxes(boxes * factor)
        pooled = heads.box_pooler(
            [maps[name] for name in heads.box_in_features], [proposals.proposal_boxes]
        )
        predictions = heads.box_predictor(heads.box_head(pooled))

        all_boxes.append(heads.box_predictor.predict_boxes(predictions, [proposals])[0] / factor)
        all_scores.append(heads.box_predictor.predict_probs(predictions, [proposals])[0])

    (result,), _ = fast_rcnn_inference(
        [torch.stack(all_boxes).mean(dim=0)],
        [torch.stack(all_scores).mean(dim=0)],
        [shape],
        heads.box_predictor.test_score_thresh,
        heads.box_predictor.test_nms_thresh,
        heads.box_predictor.test_topk_per_image,
    )
    height, width = one.get("height", shape[0]), one.get("width", shape[1])
    return {"instances": detector_postprocess(result, height, width)}


def _resize(image: torch.Tensor, factor: float) -> torch.Tensor:
    height, width = (max(1, round(side * factor)) for side in image.shape[-2:])
    return functional.interpolate(image[None], (height, width), mode="bilinear")[0]


def _merge_proposals(
    model: GeneralizedRCNN, boxes: torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    """Keep the best proposals of all scales, without their duplicates of any level."""
    proposer = model.proposal_generator
    kept = nms(boxes, logits, proposer.nms_thresh)
    return boxes[kept[: proposer.post_nms_topk[False]]]
