"""The rotated deformable DETR of ``rotated_deformable_detr_r50_dota.py`` on a satellite ViT-L.

Needs timm and weights, ``model.backbone.net.weights=FILE``, see
``configs/common/models/dinov3_sat.py``.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.config import get_config

from .rotated_deformable_detr_r50_dota import dataloader, lr_multiplier, model, optimizer, train

_vit = get_config("common/models/dinov3_sat.py")
model.backbone = _vit.backbone
model.backbone.scale_factors = [2.0, 1.0, 0.5]
model.neck.input_shapes = {
    "p3": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=8),
    "p4": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=16),
    "p5": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=32),
}
model.neck.in_features = ["p3", "p4", "p5"]
model.pixel_mean, model.pixel_std = _vit.pixels.mean, _vit.pixels.std

optimizer.params.update(lr_multipliers={"sampling_offsets": 0.1}, layer_decay=0.8)
