"""MutDet pre-training on pseudo-labels of DOTA-v1.0 tiles, with its collapse mended.

train.init_checkpoint=FILE          ImageNet weights, converted by tools/convert_checkpoint.py
dataloader.train.dataset.folder=... of pseudo-labels with embeddings
model.detector.num_classes=K        clusters of the pseudo-labels

As published, see the study in ../README.md:
    model.alignment.negatives=batch model.enhancement.zero_init=false
"""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.mutdet_r50 import model

# As published, all targets of an image become one vector.
model.alignment.negatives = "image"
model.enhancement.zero_init = True
