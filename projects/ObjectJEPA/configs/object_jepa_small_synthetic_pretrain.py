"""ObjectJEPA on the small transformer on generated scenes of 128 pixels, on two CPU cores.

model.masks.mode=blocks model.masks.loss_set=blocks  I-JEPA's masks, which ignore objects
model.masks.mode=random model.masks.loss_set=uniform random patches
model.target=pixel model.loss=l2 model.predictor.out_dim=192    pixels, as MAE
"""

from detectron2.config import LazyCall as L

from rsd2.data.splits import get_dataset_dicts

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.encoders import vit_small
from .models.object_jepa_vit_s16 import model

model.encoder = vit_small
model.predictor.update(embed_dim=64, depth=3)
model.masks.num_predicted = 96

dataloader.train.dataset.update(names="synthetic_train", held_out=["synthetic_val"])
dataloader.train.mapper.augmentations[0].crop_size = [128, 128]
dataloader.train.total_batch_size = 16
dataloader.train.num_workers = 0

# Far shorter: the target forgets its random weights by half in 70 steps, and a high rate or no term
# against equal tokens lets it collapse.
optimizer.lr = 2e-4
model.variance_weight = 0.05
lr_multiplier.warmup_iters = 150
train.max_iter = 1500
train.amp.enabled = False
train.hooks.target.half_life = 70
train.checkpointer.update(period=500, max_to_keep=2)
train.hooks.telemetry.dataset = L(get_dataset_dicts)(names="synthetic_val")
train.hooks.telemetry.update(period=250, num_images=100, batch_size=20)
