"""Rotated DETReg pre-training on pseudo-labels of DOTA-v1.0 tiles, MutDet's baseline.

The overrides of mutdet_r50_dota_pretrain.py serve here too. One class instead of the clusters:
    model.classes=one model.detector.num_classes=1
"""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.detreg_r50 import model
