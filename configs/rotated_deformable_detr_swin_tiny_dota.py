"""The rotated deformable DETR of ``rotated_deformable_detr_r50_dota.py`` on Swin-T instead.

Needs timm. Start from ImageNet weights, ``model.backbone.weights=FILE``, a state dict of timm's
``swin_tiny_patch4_window7_224``; without them the backbone starts from random weights.
"""

from rsd2.config import get_config

from .rotated_deformable_detr_r50_dota import dataloader, lr_multiplier, optimizer, train

model = get_config("common/models/rotated_deformable_detr_swin_tiny.py").model
