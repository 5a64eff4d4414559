"""Rotated Faster R-CNN on ships of 20 x 7 pixels in Sentinel-2 scenes, from random weights.

    rsd2 train --config-file configs/rotated_faster_rcnn_small_sen2ships.py

The tutorial ``docs/scenes.md`` goes on from there to maps of three ports.
"""

from rsd2.config import get_config

dataloader = get_config("common/data/sen2ships.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

# Three times enlarged, ships are 20 to 170 pixels long and 15 to 36 wide.
model.backbone.out_channels = 64
_rpn = model.proposal_generator
_rpn.head.num_anchors = 24
_rpn.anchor_generator.update(
    sizes=[[20.0, 29.0], [42.0, 60.0], [88.0, 130.0]], aspect_ratios=[0.25, 0.5]
)
model.roi_heads.num_classes = 1

optimizer.lr = 7e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters = 100
train.max_iter = 2800
train.clip_grad.enabled, train.clip_grad.max_norm = True, 5.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.995, 200
train.eval_period = 0
train.checkpointer.update(period=200, max_to_keep=3)
