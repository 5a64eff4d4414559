"""Faster R-CNN on ViT-S/16 on the upright boxes of DOTA-v1.0's train, tiles of 1024 pixels; val.

Detections of tiles are merged and scored on whole images by AI-TOD's metric, AP by object size,
which is not that of DOTA's server.

    train.init_checkpoint=FILE                           of a pre-training
    train.init_inherit.file_part=context_encoder         instead of the target encoder
    dataloader.train.dataset.fraction=0.1                of the full images and all their tiles
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.splits import get_dataset_dicts

from .common.finetune import lr_multiplier, optimizer, train
from .models.faster_rcnn_vit_s16 import model

dataloader = get_config("common/data/aitod.py").dataloader

dataloader.train.dataset = L(get_dataset_dicts)(
    names="dota_v1.0_train_1024_200_upright",
    filter_empty=False,
    fraction=1.0,
    split_seed=0,
    split_file=None,
)
dataloader.test.dataset.names = "dota_v1.0_val_1024_200_upright"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
model.roi_heads.num_classes = 15
model.backbone.net.relative_position_size = [64, 64]
