"""Faster R-CNN on the bottom-heavy ResNet-50 with SSPNet, the whole model.

Source: arXiv 2303.11267 and its released configuration: anchors, samples, thresholds, losses.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads

from rsd2.config.pyramid_rcnn import IMAGENET_PIXELS, pyramid_heads, pyramid_proposals
from rsd2.modeling import BottomHeavyResNet, MinimumQualityMatcher, WeightedNegativeRPN
from rsd2.projects.bottom_heavy import AttentionRCNN
from rsd2.projects.bottom_heavy.attention_supervision import AttentionLoss
from rsd2.projects.bottom_heavy.sspnet import SSPNet

model = L(AttentionRCNN)(
    backbone=L(SSPNet)(
        bottom_up=L(BottomHeavyResNet)(
            depths=[7, 6, 2, 1],
            stage_strides=[2, 2, 2, 2],
            bottleneck=True,
            width=64,
            stem_kernel_size=3,
            stem_stride=1,
            norm="BN",
            norm_eval=True,
            antialias=False,
            antialias_gain=1.0,
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=0,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        attention_norm="GN",
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=pyramid_proposals(
        WeightedNegativeRPN,
        head=dict(num_anchors=12),
        # Four sizes for each level, 1.5, 2.5, 3.7 and 8 strides; twelve anchors at each location.
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[
                [6.0, 10.0, 14.8, 32.0],
                [12.0, 20.0, 29.6, 64.0],
                [24.0, 40.0, 59.2, 128.0],
                [48.0, 80.0, 118.4, 256.0],
                [96.0, 160.0, 236.8, 512.0],
            ],
            aspect_ratios=[0.4, 0.8, 1.4],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(MinimumQualityMatcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], min_quality=0.3
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
        overlap_weight=0.6,
    ),
    roi_heads=pyramid_heads(
        StandardROIHeads,
        L(FastRCNNOutputLayers)(
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            test_score_thresh=0.05,
            test_nms_thresh=0.5,
            test_topk_per_image=500,
        ),
        num_classes=1,
        pooler=dict(pooler_type="ROIAlignV2", sampling_ratio=0),
        box_head=dict(conv_dims=[], fc_dims=[1024, 1024]),
    ),
    # The released detector's loss; SSPNet's own release has kind="heatmap", bce_weight=0.01.
    attention_loss=L(AttentionLoss)(
        strides=[4, 8, 16, 32], kind="tinymap", bce_weight=1e-4, dice_weight=1.0
    ),
    **IMAGENET_PIXELS,
)
