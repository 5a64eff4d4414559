"""The two stages of a Faster R-CNN on a feature pyramid p2 to p6, as nodes of a config.

Detectors of upright and of rotated boxes differ in classes, anchors and limits; the rest is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from omegaconf import DictConfig

# Mean and standard deviation of ImageNet's RGB values in 0 to 255.
IMAGENET_PIXELS = {
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "input_format": "RGB",
}


def pyramid_proposals(
    kind: Callable[..., Any], head: dict[str, Any], **settings: Any
) -> DictConfig:
    """Return the node of a region proposal network on p2 to p6.

    Source: Faster R-CNN (arXiv 1506.01497), section 3.1; FPN (arXiv 1612.03144), section 4.1.

    Args:
        kind: Detectron2's ``RPN`` or a subclass.
        head: arguments of ``StandardRPNHead``, ``num_anchors`` among them.
        settings: further arguments of ``kind``: its anchors, their matcher, its limits.

    Returns:
        The lazy call of ``kind``; its width follows ``backbone.out_channels`` of the model.
    """
    return L(kind)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(StandardRPNHead)(in_channels="${...backbone.out_channels}", **head),
        batch_size_per_image=256,
        positive_fraction=0.5,
        nms_thresh=0.7,
        **settings,
    )


def pyramid_heads(
    kind: Callable[..., Any],
    predictor: DictConfig,
    *,
    num_classes: int,
    pooler: dict[str, Any],
    box_head: dict[str, Any],
) -> DictConfig:
    """Return the node of the second stage: boxes pooled from p2 to p5, and fully connected layers.

    Source: FPN (arXiv 1612.03144), section 4.2.

    Args:
        kind: Detectron2's ``StandardROIHeads`` or a subclass.
        predictor: lazy call of the output layers, without the shape of their input and without
            the number of classes, which follow the rest.
        num_classes: number of classes, without the background.
        pooler: ``pooler_type`` and ``sampling_ratio`` of ``ROIPooler``.
        box_head: ``conv_dims`` and ``fc_dims`` of ``FastRCNNConvFCHead``, or more.

    Returns:
        The lazy call of ``kind``; its width follows ``backbone.out_channels`` of the model.
    """
    predictor.num_classes = "${..num_classes}"
    last = len(box_head["fc_dims"]) - 1
    predictor.input_shape = L(ShapeSpec)(channels=f"${{...box_head.fc_dims.{last}}}")

    return L(kind)(
        num_classes=num_classes,
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(
            thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False
        ),
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(output_size=7, scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32), **pooler),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(
                channels="${....backbone.out_channels}",
                height="${...box_pooler.output_size}",
                width="${...box_pooler.output_size}",
            ),
            **box_head,
        ),
        box_predictor=predictor,
    )
