"""Rotated Faster R-CNN from ImageNet's EfficientNet-Lite0 on ships in Sentinel-2 scenes, on a CPU.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_faster_rcnn_lite0_sen2ships.py

``rotated_faster_rcnn_small_sen2ships.py`` is the same from random weights.
"""

from rsd2.config import get_config

from .rotated_faster_rcnn_small_sen2ships import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

lite0 = get_config("common/models/efficientnet_lite0.py")
model.backbone.bottom_up = lite0.backbone
model.backbone.bottom_up.out_features = ["stride4", "stride8", "stride16"]
model.pixel_mean, model.pixel_std = lite0.pixels.mean, lite0.pixels.std

optimizer.params.lr_multipliers = {"backbone.bottom_up": 0.3}
train.channels_last = True
