"""Mask: no blocks; patches of objects have a larger weight than others.

model.masks.object_weight=W     0.5 spares objects, 2.7 hides nearly all of them; 1 is random
model.masks.beta=1              weights exp(beta q) by what a patch shows of an object
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.mode = "soft"
