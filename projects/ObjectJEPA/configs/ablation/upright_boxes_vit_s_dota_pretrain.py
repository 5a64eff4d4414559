"""Boxes: upright ones around the rotated ones.

dataloader.train.mapper.box_jitter=0.25              to see what exact boxes are worth
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

dataloader.train.mapper.box_kind = "upright"
