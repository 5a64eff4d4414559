"""Mask: exactly three quarters of the patches of objects, and so many others that a quarter of
the image is visible.

model.masks.num_context=720 model.masks.num_predicted=64
    hides little else
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.update(mode="hard", ratio_scope="object", ratio=0.75, num_context=196)
