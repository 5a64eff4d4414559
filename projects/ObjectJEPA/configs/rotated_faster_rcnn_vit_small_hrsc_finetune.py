"""Rotated Faster R-CNN on a small transformer on HRSC2016, images of 320 pixels.

train.init_checkpoint=FILE                           of a pre-training; none: from scratch
dataloader.train.dataset.fraction=0.1                of the images
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid

from .common.finetune_small import lr_multiplier, optimizer, train
from .models.encoders import vit_small_p16

dataloader = get_config("common/data/hrsc.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model

model.backbone = L(SimplePyramid)(
    net=vit_small_p16, out_channels=96, scale_factors=[2.0, 1.0, 0.5], norm="LN"
)
# Anchors for ships, as of rotated_faster_rcnn_lite0_hrsc.py.
_rpn, _heads = model.proposal_generator, model.roi_heads
_rpn.in_features = _heads.box_in_features = ["p3", "p4", "p5"]
_rpn.head.num_anchors = 48
_rpn.anchor_generator.update(
    sizes=[[16.0, 25.0], [38.0, 54.0], [74.0, 110.0]],
    aspect_ratios=[0.13, 0.25],
    angles=[-90.0, -75.0, -60.0, -45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0],
    strides=[8, 16, 32],
)
_heads.num_classes = 1
_heads.box_pooler.scales = (1 / 8, 1 / 16, 1 / 32)

train.max_iter = 600
train.checkpointer.period = 100
