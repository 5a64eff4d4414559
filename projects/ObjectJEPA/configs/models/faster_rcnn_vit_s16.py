"""Faster R-CNN on ViT-S/16 with a simple feature pyramid, the whole model.

Source: ViTDet (arXiv 2203.16527), its windows, relative positions, pyramid and heads; anchors for
objects from 4 pixels on. The final norm stays, because pre-training ends with it, and positions are
spread over the larger image.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads

from rsd2.config.pyramid_rcnn import IMAGENET_PIXELS, pyramid_heads, pyramid_proposals
from rsd2.modeling import BoundedMemoryRPN, MinimumQualityMatcher, SimplePyramid

from .encoders import vit_s16

vit_s16.update(
    drop_path_rate=0.1,
    window_size=14,
    global_blocks=[2, 5, 8, 11],
    use_relative_positions=True,
    relative_position_size=[50, 50],
    position_grid=[28, 28],
    position_mode="interpolate",
)

model = L(GeneralizedRCNN)(
    backbone=L(SimplePyramid)(
        net=vit_s16,
        out_channels=256,
        scale_factors=[4.0, 2.0, 1.0, 0.5],
        top_block=L(LastLevelMaxPool)(),
        norm="LN",
    ),
    proposal_generator=pyramid_proposals(
        BoundedMemoryRPN,
        head=dict(num_anchors=6, conv_dims=[-1, -1]),
        # Two sizes for each level, 1.5 and 2.1 strides; six anchors at each location.
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[6.0, 8.5], [12.0, 17.0], [24.0, 34.0], [48.0, 68.0], [96.0, 136.0]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(MinimumQualityMatcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1]),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        pre_nms_topk=(3000, 3000),
        post_nms_topk=(3000, 3000),
    ),
    roi_heads=pyramid_heads(
        StandardROIHeads,
        L(FastRCNNOutputLayers)(
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            test_score_thresh=0.05,
            test_nms_thresh=0.5,
            test_topk_per_image=1500,
        ),
        num_classes=8,
        pooler=dict(pooler_type="ROIAlignV2", sampling_ratio=0),
        box_head=dict(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN"),
    ),
    **IMAGENET_PIXELS,
)
