"""Small rotated deformable DETR from EfficientNet-Lite0 on GDIT's airports.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_deformable_detr_lite0_airport.py

The labels are upright boxes, here rotated ones that no angle turns.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.mappers.transforms import RandomObjectCrop

_lite0 = get_config("common/models/efficientnet_lite0.py")
_recipe = get_config("common/short.py")
dataloader = get_config("common/data/hrsc.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model
optimizer, lr_multiplier, train = _recipe.optimizer, _recipe.lr_multiplier, _recipe.train

model.backbone, model.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
model.num_classes = 1

dataloader.train.dataset.names = "airport_train"
# A DETR measures boxes in shares of the image: windows must be as large as the parts of training.
dataloader.test.dataset.names = "airport_valid_256_96_virtual"
# Parts in their own size: a plane of 8 pixels must not become smaller.
dataloader.train.mapper.augmentations[0] = L(RandomObjectCrop)(
    crop_size=[256, 256], object_prob=0.8
)
dataloader.test.mapper.augmentations = []

# Chosen on a part of HRSC2016's training images.
optimizer.lr = 4e-4
train.clip_grad.max_norm = 1.0
train.max_iter = 2400
