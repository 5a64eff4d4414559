"""Rotated Faster R-CNN from ImageNet's EfficientNet-Lite0 on HRSC2016, on a CPU.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_faster_rcnn_lite0_hrsc.py

Ships are about 40 pixels in the root of their area, and six times as long as wide.
"""

from rsd2.config import get_config

lite0 = get_config("common/models/efficientnet_lite0.py")
dataloader = get_config("common/data/hrsc.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

model.backbone.bottom_up = lite0.backbone
model.backbone.out_channels = 96
model.pixel_mean, model.pixel_std = lite0.pixels.mean, lite0.pixels.std
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

optimizer.lr = 7e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {"backbone.bottom_up": 0.3}
lr_multiplier.warmup_iters = 100
train.max_iter = 1600
train.clip_grad.enabled, train.clip_grad.max_norm = True, 5.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.995, 200
train.channels_last = True
train.eval_period = 0
train.checkpointer.update(period=200, max_to_keep=3)
