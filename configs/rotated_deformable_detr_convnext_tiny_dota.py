"""The rotated deformable DETR of ``rotated_deformable_detr_r50_dota.py`` on ConvNeXt-T instead.

Needs timm. Start from ImageNet weights, ``model.backbone.weights=FILE``, a state dict of timm's
``convnext_tiny``; without them the backbone starts from random weights.
"""

from rsd2.config import get_config

from .rotated_deformable_detr_r50_dota import dataloader, lr_multiplier, optimizer, train

model = get_config("common/models/rotated_deformable_detr_convnext_tiny.py").model
