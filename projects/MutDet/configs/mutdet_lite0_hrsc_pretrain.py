"""MutDet pre-training of the small detector from EfficientNet-Lite0, on real images.

The overrides of detreg_lite0_hrsc_pretrain.py serve here too.
"""

from rsd2.config import get_config

from .common.pretrain_small import dataloader, lr_multiplier, optimizer, train
from .models.mutdet_r50 import model

_lite0 = get_config("common/models/efficientnet_lite0.py")
_root = "${oc.env:DETECTRON2_DATASETS,datasets}"
dataloader.train.dataset.folder = f"{_root}/pseudo/unlabelled"
dataloader.train.dataset.image_root = f"{_root}/unlabelled"
dataloader.train.mapper.augmentations[0].update(short_edge_length=256, max_size=256)
dataloader.train.total_batch_size = 4
train.channels_last = True

model.detector = get_config("common/models/rotated_deformable_detr_small.py").model
model.detector.backbone, model.detector.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.detector.pixel_mean, model.detector.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
model.detector.num_classes = 64
model.embedding_dim = 128
model.enhancement.num_heads = 4
model.enhancement.feedforward_dim = 256
