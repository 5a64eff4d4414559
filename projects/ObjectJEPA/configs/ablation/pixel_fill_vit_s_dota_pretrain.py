"""Input: hidden patches are filled with the mean colour instead of dropped; no mask tokens."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masked_input = "fill"
model.predictor.mask_tokens = False
