"""Mask: the blocks of I-JEPA, which are also what is predicted; no objects."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.update(mode="blocks", num_blocks=4, loss_set="blocks")
