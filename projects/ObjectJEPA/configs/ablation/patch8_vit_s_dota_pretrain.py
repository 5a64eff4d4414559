"""Resolution: patches of 8 pixels on crops of 224, so that a vehicle has more than one token."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.encoder.patch_size = 8
dataloader.train.mapper.augmentations[0].crop_size = [224, 224]
