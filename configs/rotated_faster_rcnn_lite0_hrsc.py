"""Rotated Faster R-CNN from ImageNet's EfficientNet-Lite0 on HRSC2016, on a CPU.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_faster_rcnn_lite0_hrsc.py

Ships are about 40 pixels in the root of their area, and six times as long as wide.
"""

from rsd2.config import get_config

_lite0 = get_config("common/models/efficientnet_lite0.py")
_recipe = get_config("common/short.py")
dataloader = get_config("common/data/hrsc.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer, lr_multiplier, train = _recipe.optimizer, _recipe.lr_multiplier, _recipe.train

model.backbone.bottom_up = _lite0.backbone
model.backbone.out_channels = 96
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
_rpn, _heads = model.proposal_generator, model.roi_heads
_rpn.in_features = _heads.box_in_features = ["p3", "p4", "p5"]
# The narrower an anchor, the less it may be turned against its ship: every 15 degrees.
_rpn.head.num_anchors = 48
_rpn.anchor_generator.update(
    sizes=[[16.0, 25.0], [38.0, 54.0], [74.0, 110.0]],
    aspect_ratios=[0.13, 0.25],
    angles=[-90.0, -75.0, -60.0, -45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0],
    strides=[8, 16, 32],
)
_heads.num_classes = 1
_heads.box_pooler.scales = (1 / 8, 1 / 16, 1 / 32)

train.max_iter = 1200
