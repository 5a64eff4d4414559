"""The rotated Faster R-CNN of ``rotated_faster_rcnn_r50_dota.py`` on a satellite ViT-L.

Needs timm and weights, ``model.backbone.net.weights=FILE``, see
``configs/common/models/dinov3_sat.py``.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from rsd2.config import get_config

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, train

_vit = get_config("common/models/dinov3_sat.py")
model.backbone = _vit.backbone
model.backbone.scale_factors = [4.0, 2.0, 1.0, 0.5]
model.backbone.top_block = L(LastLevelMaxPool)()
model.pixel_mean, model.pixel_std = _vit.pixels.mean, _vit.pixels.std

# A transformer does not learn from the SGD of the ResNet.
optimizer = get_config("common/optim.py").AdamW
optimizer.params.update(lr_multipliers={}, layer_decay=0.8)
