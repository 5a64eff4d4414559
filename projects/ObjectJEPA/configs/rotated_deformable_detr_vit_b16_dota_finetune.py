"""The rotated deformable DETR on ViT-B/16 on DOTA-v1.0; all else as with ViT-S/16."""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train
from .models.rotated_deformable_detr_vit_s16 import model

dataloader = get_config("common/data/dota.py").dataloader

dataloader.train.dataset.names = "dota_v1.0_train_1024_200"
dataloader.test.dataset.names = "dota_v1.0_val_1024_200"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
optimizer.params.lr_multipliers = {"sampling_offsets": 0.1}
model.backbone.net.update(embed_dim=768, num_heads=12)
