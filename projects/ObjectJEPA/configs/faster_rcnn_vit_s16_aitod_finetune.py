"""Faster R-CNN on ViT-S/16 on AI-TOD, trained on trainval and scored on test.

train.init_checkpoint=FILE                           of a pre-training
train.init_inherit.file_part=context_encoder         instead of the target encoder
dataloader.train.dataset.fraction=0.1                of the images
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.splits import get_dataset_dicts

from .common.finetune import lr_multiplier, optimizer, train
from .models.faster_rcnn_vit_s16 import model

dataloader = get_config("common/data/aitod.py").dataloader

dataloader.train.dataset = L(get_dataset_dicts)(
    names="aitod_trainval", filter_empty=False, fraction=1.0, split_seed=0, split_file=None
)
