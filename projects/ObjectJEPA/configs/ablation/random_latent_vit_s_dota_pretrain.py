"""Mask: random patches, as in MAE, and any of them predicted; with latent targets."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.update(mode="random", loss_set="uniform")
