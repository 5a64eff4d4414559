"""Rotated DETReg pre-training on pseudo-labels of DOTA-v1.0 tiles, MutDet's baseline.

The overrides of mutdet_r50_dota_pretrain.py serve here too. One class instead of the clusters:
    model.classes=one model.detector.num_classes=1
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("MutDet/configs/models/detreg_r50.py").model
