"""Fine-tuning of the small detector from EfficientNet-Lite0 on HRSC2016: one arm of the study.

rsd2 get-weights efficientnet_lite0
model.backbone.weights=FILE                     of get-weights
train.init_checkpoint=FILE                      of a pre-training; none: of ImageNet alone
dataloader.train.dataset.fraction=0.1           of the labels

Images are 256 pixels on their long side, because the small detector learns slowly.
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train

_lite0 = get_config("common/models/efficientnet_lite0.py")
dataloader = get_config("common/data/hrsc.py").dataloader
dataloader.train.mapper.augmentations[0].update(short_edge_length=[154, 230], max_size=320)
dataloader.test.mapper.augmentations[0].update(short_edge_length=256, max_size=256)

model = get_config("common/models/rotated_deformable_detr_small.py").model
model.backbone, model.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
model.num_classes = 1

# The rate was chosen on a part of the training split. Pre-trained layers change less.
optimizer.lr = 4e-4
optimizer.weight_decay = 1e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {"backbone.net": 0.3}
lr_multiplier.warmup_iters = 100
train.max_iter, train.epochs = 3000, None
train.clip_grad.max_norm = 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.checkpointer.period = 500
train.channels_last = True
