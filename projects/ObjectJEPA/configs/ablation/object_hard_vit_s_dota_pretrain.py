"""Mask: patches of objects first, all of them, then random ones.

model.masks.object_part=0.5                          half of the patches of each object
model.masks.instance_share=0.5                       half of the objects
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.mode = "hard"
