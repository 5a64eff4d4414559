"""Rotated Faster R-CNN on generated 128-px scenes, to be trained on two CPU cores."""

from rsd2.config import get_config

dataloader = get_config("common/data/synthetic.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

model.roi_heads.num_classes = 7
optimizer.lr = 1e-3
optimizer.fused = True
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters = 100
train.max_iter = 1700
train.clip_grad.enabled, train.clip_grad.max_norm = True, 5.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.eval_period = 0
train.checkpointer.period = 500
