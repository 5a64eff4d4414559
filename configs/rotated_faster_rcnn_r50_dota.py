"""Rotated Faster R-CNN on DOTA-v1.0, tiles of 1024 pixels, 12 epochs.

Trains on train and evaluates on the merged full images of val. Start from ImageNet weights,
``train.init_checkpoint=FILE train.init_strict=false``: on random weights the frozen normalization
and first stages of the backbone do not learn.
"""

from rsd2.config import get_config

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_r50.py").model
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

dataloader.train.dataset.names = "dota_v1.0_train_1024_200"
dataloader.test.dataset.names = "dota_v1.0_val_1024_200"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)

optimizer.lr = 0.005
train.clip_grad.enabled, train.clip_grad.max_norm = True, 35.0
lr_multiplier.scheduler.update(values=[1.0, 0.1, 0.01], milestones=[8, 11], num_updates=12)

# 12 epochs in batches of 2, for an assumed 15,750 tiles. How many yours are stands in the tiles'
# index and in the training's log: train.max_iter = 12 * tiles / 2.
train.max_iter = 94_500
train.eval_period = train.checkpointer.period = 7875
