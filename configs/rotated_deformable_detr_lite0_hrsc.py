"""Small rotated deformable DETR from ImageNet's EfficientNet-Lite0 on HRSC2016, on a CPU.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_deformable_detr_lite0_hrsc.py
"""

from rsd2.config import get_config

lite0 = get_config("common/models/efficientnet_lite0.py")
dataloader = get_config("common/data/hrsc.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

model.backbone, model.neck.input_shapes = lite0.backbone, lite0.input_shapes
model.pixel_mean, model.pixel_std = lite0.pixels.mean, lite0.pixels.std
model.num_classes = 1

optimizer.lr = 1e-3
optimizer.fused = True
optimizer.params.lr_multipliers = {"backbone": 0.2}
lr_multiplier.warmup_iters = 100
train.max_iter = 2400
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.995, 200
train.channels_last = True
train.eval_period = 0
train.checkpointer.update(period=200, max_to_keep=3)
