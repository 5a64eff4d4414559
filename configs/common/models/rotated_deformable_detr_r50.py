"""Rotated two-stage deformable DETR on ResNet-50 (ARS-DETR with denoising), the whole model."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from rsd2.modeling import (
    ChannelMapper,
    DeformableEncoder,
    DetectorQuirks,
    HungarianMatcher,
    RotatedDeformableDecoder,
    RotatedDeformableDETR,
    SetCriterion,
)

model = L(RotatedDeformableDETR)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=2,
    ),
    neck=L(ChannelMapper)(
        input_shapes={
            "res3": L(ShapeSpec)(channels=512, stride=8),
            "res4": L(ShapeSpec)(channels=1024, stride=16),
            "res5": L(ShapeSpec)(channels=2048, stride=32),
        },
        in_features="${..backbone.out_features}",
        out_channels="${..embed_dim}",
        num_levels="${..num_levels}",
    ),
    encoder=L(DeformableEncoder)(
        num_layers=6,
        embed_dim="${..embed_dim}",
        num_heads=8,
        num_levels="${..num_levels}",
        num_points=4,
        feedforward_dim=1024,
        dropout=0.1,
    ),
    decoder=L(RotatedDeformableDecoder)(
        num_layers=6,
        embed_dim="${..embed_dim}",
        num_heads="${..encoder.num_heads}",
        num_levels="${..num_levels}",
        num_points="${..encoder.num_points}",
        feedforward_dim="${..encoder.feedforward_dim}",
        dropout="${..encoder.dropout}",
        quirks="${..quirks}",
    ),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(
            class_weight=2.0,
            l1_weight=2.0,
            giou_weight=5.0,
            angle_weight=2.0,
            quirks="${...quirks}",
        ),
        class_weight=2.0,
        l1_weight=2.0,
        giou_weight=5.0,
        angle_weight=2.0,
    ),
    num_classes=15,
    num_queries=300,
    embed_dim=256,
    num_levels=4,
    max_detections=300,
    score_threshold=0.0,
    nms_threshold=None,
    num_denoising_queries=100,
    label_noise=0.25,
    box_noise=0.4,
    angle_noise=0.02,
    quirks=L(DetectorQuirks)(),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
