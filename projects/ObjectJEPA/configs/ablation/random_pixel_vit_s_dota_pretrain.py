"""MAE's question: random patches are hidden, and their pixels are predicted."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.update(mode="random", loss_set="uniform")
model.update(target="pixel", loss="l2")
model.predictor.out_dim = 768
