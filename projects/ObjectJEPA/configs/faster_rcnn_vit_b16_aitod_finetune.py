"""Faster R-CNN on ViT-B/16 on AI-TOD; all else as with ViT-S/16."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.splits import get_dataset_dicts

from .common.finetune import lr_multiplier, optimizer, train
from .models.faster_rcnn_vit_s16 import model

dataloader = get_config("common/data/aitod.py").dataloader

dataloader.train.dataset = L(get_dataset_dicts)(
    names="aitod_trainval", filter_empty=False, fraction=1.0, split_seed=0, split_file=None
)
model.backbone.net.update(embed_dim=768, num_heads=12)
