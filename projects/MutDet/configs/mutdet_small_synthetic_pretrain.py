"""MutDet pre-training of the small detector on generated scenes, for study and demo.

train.init_checkpoint=FILE          of the small backbone, trained on crops
model.detector.num_classes=K        clusters of the pseudo-labels
model.embedding_dim=D               components of the embeddings
"""

from rsd2.config import get_config

from .common.pretrain_small import dataloader, lr_multiplier, optimizer, train
from .models.mutdet_r50 import model

model.detector = get_config("common/models/rotated_deformable_detr_small.py").model
model.detector.num_classes = 64
model.embedding_dim = 128
model.enhancement.num_heads = 4
model.enhancement.feedforward_dim = 256
