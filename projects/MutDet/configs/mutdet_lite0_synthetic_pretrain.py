"""MutDet pre-training on generated scenes over a fixed EfficientNet-Lite0 of ImageNet.

The overrides of detreg_lite0_synthetic_pretrain.py serve here too.
"""

from .detreg_lite0_synthetic_pretrain import dataloader, lr_multiplier, optimizer, train
from .detreg_lite0_synthetic_pretrain import model as _detreg
from .models.mutdet_r50 import model

model.detector = _detreg.detector
model.embedding_dim = _detreg.embedding_dim
model.enhancement.num_heads = 4
model.enhancement.feedforward_dim = 256
