"""MutDet pre-training on pseudo-labels of DOTA-v1.0 tiles.

train.init_checkpoint=FILE          ImageNet weights, converted by tools/convert_checkpoint.py
dataloader.train.dataset.folder=... of pseudo-labels with embeddings
model.detector.num_classes=K        clusters of the pseudo-labels
"""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.mutdet_r50 import model
