"""Small rotated deformable DETR from EfficientNet-Lite0 on GDIT's airports.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_deformable_detr_lite0_airport.py

The labels are upright boxes, here rotated ones that no angle turns.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.mappers.transforms import RandomObjectCrop

_ships = get_config("rotated_deformable_detr_lite0_hrsc.py")
dataloader, model = _ships.dataloader, _ships.model
optimizer, lr_multiplier, train = _ships.optimizer, _ships.lr_multiplier, _ships.train

dataloader.train.dataset.names = "airport_train"
dataloader.test.dataset.names = "airport_valid"
# Parts in their own size: a plane of 8 pixels must not become smaller.
dataloader.train.mapper.augmentations[0] = L(RandomObjectCrop)(
    crop_size=[256, 256], object_prob=0.8
)
dataloader.test.mapper.augmentations = []
