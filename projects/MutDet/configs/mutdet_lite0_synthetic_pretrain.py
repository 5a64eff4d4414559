"""MutDet pre-training on generated scenes over a fixed EfficientNet-Lite0 of ImageNet.

model.detector.backbone.weights=FILE    of ``rsd2 get-weights efficientnet_lite0``
model.detector.num_classes=K            clusters of the pseudo-labels
model.embedding_dim=D                   components of the embeddings
"""

from rsd2.config import get_config

from .mutdet_small_synthetic_pretrain import dataloader as dataloader
from .mutdet_small_synthetic_pretrain import lr_multiplier as lr_multiplier
from .mutdet_small_synthetic_pretrain import model, train
from .mutdet_small_synthetic_pretrain import optimizer as optimizer

_lite0 = get_config("common/models/efficientnet_lite0.py")
model.detector.backbone, model.detector.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.detector.pixel_mean, model.detector.pixel_std = _lite0.pixels.mean, _lite0.pixels.std

# As published, the backbone stays as it is: pseudo-boxes teach it nothing of objects.
model.detector.backbone.freeze_at = 5
train.channels_last = True
