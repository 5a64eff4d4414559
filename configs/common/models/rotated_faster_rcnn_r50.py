"""Rotated Faster R-CNN on ResNet-50 with an FPN, the whole model.

Source: RRPN (arXiv 1703.01086) for anchors at angles, Detectron2's rotated heads. An anchor has one
of six angles, 30 degrees apart: between two of them, a box four times as long as wide still
overlaps one by half.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import RotatedAnchorGenerator
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from detectron2.modeling.roi_heads.rotated_fast_rcnn import RotatedFastRCNNOutputLayers, RROIHeads

from rsd2.config.pyramid_rcnn import IMAGENET_PIXELS, pyramid_heads, pyramid_proposals
from rsd2.modeling import (
    BoundedMemoryRRPN,
    MinimumQualityMatcher,
    RectangleTransform,
    RotatedFasterRCNN,
)

model = L(RotatedFasterRCNN)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=pyramid_proposals(
        BoundedMemoryRRPN,
        head=dict(num_anchors=18, box_dim=5),
        # One size for each level, three shapes (height / width), six angles.
        anchor_generator=L(RotatedAnchorGenerator)(
            sizes=[[16.0], [32.0], [64.0], [128.0], [256.0]],
            aspect_ratios=[0.15, 0.35, 0.8],
            angles=[-90.0, -60.0, -30.0, 0.0, 30.0, 60.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.5,
        ),
        anchor_matcher=L(MinimumQualityMatcher)(
            thresholds=[0.3, 0.6], labels=[0, -1, 1], min_quality=0.2
        ),
        box2box_transform=L(RectangleTransform)(weights=[1.0, 1.0, 1.0, 1.0, 1.0]),
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
        # Sides that a diverging start makes tiny could not be encoded again.
        min_box_size=1.0,
    ),
    roi_heads=pyramid_heads(
        RROIHeads,
        L(RotatedFastRCNNOutputLayers)(
            box2box_transform=L(RectangleTransform)(weights=[10.0, 10.0, 5.0, 5.0, 5.0]),
            test_score_thresh=0.05,
            test_nms_thresh=0.1,
            test_topk_per_image=2000,
        ),
        num_classes=15,
        pooler=dict(pooler_type="ROIAlignRotated", sampling_ratio=2),
        box_head=dict(conv_dims=[], fc_dims=[1024, 1024]),
    ),
    **IMAGENET_PIXELS,
)
