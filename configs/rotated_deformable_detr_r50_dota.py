"""ARS-DETR with denoising on DOTA-v1.0, tiles of 1024 pixels, 36 epochs (arXiv 2303.04989).

Trains on train and evaluates on the merged full images of val. Start from ImageNet weights,
``train.init_checkpoint=FILE train.init_strict=false``: on random weights the frozen normalization
and first stages of the backbone do not learn.
"""

from rsd2.config import get_config

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_deformable_detr_r50.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

dataloader.train.dataset.names = "dota_v1.0_train_1024_200"
dataloader.test.dataset.names = "dota_v1.0_val_1024_200"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)

optimizer.weight_decay = 1e-5
train.clip_grad.enabled, train.clip_grad.max_norm = True, 35.0

# 36 epochs in batches of 2, for an assumed 15,750 tiles. The tiles' index and the training's log
# tell how many you have: train.max_iter = 36 * tiles / 2.
train.max_iter = 283_500
train.eval_period = train.checkpointer.period = 23_625
