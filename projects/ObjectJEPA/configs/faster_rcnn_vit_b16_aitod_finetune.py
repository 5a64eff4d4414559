"""Faster R-CNN on ViT-B/16 on AI-TOD; all else as with ViT-S/16."""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train
from .models.faster_rcnn_vit_s16 import model

dataloader = get_config("common/data/aitod.py").dataloader
model.backbone.net.update(embed_dim=768, num_heads=12)
