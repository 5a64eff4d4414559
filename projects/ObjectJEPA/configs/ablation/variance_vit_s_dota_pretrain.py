"""Against collapse: channels of the context tokens are to vary, objects and background apart."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.variance_weight = 0.05
