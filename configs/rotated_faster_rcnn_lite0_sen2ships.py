"""Rotated Faster R-CNN from ImageNet's EfficientNet-Lite0 on ships in Sentinel-2 scenes.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_faster_rcnn_lite0_sen2ships.py

``rotated_faster_rcnn_small_sen2ships.py`` is its peer from random weights, with the same anchors.
"""

from rsd2.config import get_config

_lite0 = get_config("common/models/efficientnet_lite0.py")
_recipe = get_config("common/short.py")
dataloader = get_config("common/data/sen2ships.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer, lr_multiplier, train = _recipe.optimizer, _recipe.lr_multiplier, _recipe.train

model.backbone.bottom_up = _lite0.backbone
model.backbone.bottom_up.out_features = ["stride4", "stride8", "stride16"]
model.backbone.out_channels = 64
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
_rpn = model.proposal_generator
_rpn.head.num_anchors = 24
_rpn.anchor_generator.update(
    sizes=[[20.0, 29.0], [42.0, 60.0], [88.0, 130.0]], aspect_ratios=[0.25, 0.5]
)
model.roi_heads.num_classes = 1

# About 16 minutes of CPU time.
train.max_iter = 2200
