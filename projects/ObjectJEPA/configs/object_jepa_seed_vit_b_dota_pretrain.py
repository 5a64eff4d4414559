"""The idea to the letter: patches of objects first until three quarters of the image are masked,
masked in the image itself, whose tokens are all encoded; no mask tokens, squared error.

It does not say what moves the target encoder: here it is the usual moving average.

train.hooks.target.start=1 train.hooks.target.end=1     keeps it random
train.hooks.target.start=0 train.hooks.target.end=0     makes it a copy
"""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.encoders import vit_b16
from .models.object_jepa_vit_s16 import model

model.encoder = vit_b16
model.predictor.update(embed_dim=384, mask_tokens=False)
model.masks.update(mode="hard", ratio=0.75, num_predicted=None, loss_set="uniform")
model.update(masked_input="fill", loss="l2", normalize_target=False)
