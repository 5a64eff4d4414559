"""Rotated DETReg pre-training of the small detector from EfficientNet-Lite0, on real images.

rsd2 get-weights efficientnet_lite0
model.detector.backbone.weights=FILE            of get-weights
dataloader.train.dataset.folder=DIR             of extract_embeddings.py
dataloader.train.dataset.image_root=DIR         the images
model.detector.num_classes=K                    clusters of the pseudo-labels
model.embedding_dim=D                           components of the embeddings
"""

from rsd2.config import get_config

from .common.pretrain_lite0 import backbone as _backbone
from .common.pretrain_lite0 import dataloader, lr_multiplier, optimizer, train
from .common.pretrain_lite0 import input_shapes as _input_shapes
from .common.pretrain_lite0 import pixels as _pixels
from .models.detreg_r50 import model

model.detector = get_config("common/models/rotated_deformable_detr_small.py").model
model.detector.backbone, model.detector.neck.input_shapes = _backbone, _input_shapes
model.detector.pixel_mean, model.detector.pixel_std = _pixels.mean, _pixels.std
model.detector.num_classes = 64
model.embedding_dim = 128
