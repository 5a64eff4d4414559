"""Rotated Faster R-CNN on a small transformer on HRSC2016, images of 320 pixels.

train.init_checkpoint=FILE                           of a pre-training; none: from scratch
dataloader.train.dataset.fraction=0.1                of the images
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid

from .common.finetune_small import lr_multiplier, optimizer, train
from .models.encoders import vit_small_p16

# Anchors and heads for ships on maps of strides 8 to 32.
_ships = get_config("rotated_faster_rcnn_lite0_hrsc.py")
dataloader, model = _ships.dataloader, _ships.model

model.backbone = L(SimplePyramid)(
    net=vit_small_p16, out_channels=96, scale_factors=[2.0, 1.0, 0.5], norm="LN"
)
model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

train.max_iter = 600
