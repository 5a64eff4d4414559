"""Fine-tuning of the small detector with ImageNet's EfficientNet-Lite0, for study and demo.

rsd2 get-weights efficientnet_lite0
model.backbone.weights=FILE                     of get-weights; null if init_checkpoint has them
dataloader.train.dataset.fraction=0.1           of the labels
"""

from rsd2.config import get_config

from .mutdet_small_synthetic_finetune import dataloader as dataloader
from .mutdet_small_synthetic_finetune import lr_multiplier as lr_multiplier
from .mutdet_small_synthetic_finetune import model, optimizer, train

_lite0 = get_config("common/models/efficientnet_lite0.py")
model.backbone, model.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std

# Pre-trained layers change less than new ones.
optimizer.params.lr_multipliers = {"backbone.net": 0.3}
train.channels_last = True
