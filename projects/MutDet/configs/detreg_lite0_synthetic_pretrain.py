"""Rotated DETReg pre-training on generated scenes over a fixed EfficientNet-Lite0 of ImageNet.

model.detector.backbone.weights=FILE    of ``rsd2 get-weights efficientnet_lite0``
model.detector.num_classes=K            clusters of the pseudo-labels
model.embedding_dim=D                   components of the embeddings
"""

from rsd2.config import get_config

from .common.pretrain_small import dataloader, lr_multiplier, optimizer, train
from .models.detreg_r50 import model

_lite0 = get_config("common/models/efficientnet_lite0.py")
model.detector = get_config("common/models/rotated_deformable_detr_small.py").model
model.detector.backbone, model.detector.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.detector.pixel_mean, model.detector.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
model.detector.num_classes = 64
model.embedding_dim = 128

# As published, the backbone stays as it is: pseudo-boxes teach it nothing of objects.
model.detector.backbone.freeze_at = 5
train.channels_last = True
