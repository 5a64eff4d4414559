"""The rotated deformable DETR on ViT-S/16 on DOTA-v1.0, tiles of 1024 pixels; train, then val.

train.init_checkpoint=FILE                           of a pre-training
train.init_inherit.file_part=context_encoder         instead of the target encoder
dataloader.train.dataset.fraction=0.1                of the full images and all their tiles
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train
from .models.rotated_deformable_detr_vit_s16 import model

dataloader = get_config("common/data/dota.py").dataloader

dataloader.train.dataset.names = "dota_v1.0_train_1024_200"
dataloader.test.dataset.names = "dota_v1.0_val_1024_200"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
optimizer.params.lr_multipliers = {"sampling_offsets": 0.1}
