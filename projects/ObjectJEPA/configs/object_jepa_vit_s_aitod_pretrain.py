"""ObjectJEPA on ViT-S/16 on the upright boxes of AI-TOD's trainval; all else as on DOTA."""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.object_jepa_vit_s16 import model

dataloader.train.dataset.names = "aitod_trainval"
