"""The rotated Faster R-CNN of ``rotated_faster_rcnn_r50_dota.py`` on Swin-T instead.

Needs timm. Start from ImageNet weights, ``model.backbone.bottom_up.weights=FILE``, a state dict of
timm's ``swin_tiny_patch4_window7_224``; without them the backbone starts from random weights.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.modeling import TimmBackbone

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, train

model.backbone.bottom_up = L(TimmBackbone)(
    name="swin_tiny_patch4_window7_224",
    out_features=["stride4", "stride8", "stride16", "stride32"],
    weights=None,
    options={"drop_path_rate": 0.2},
)

# Such models are trained with AdamW, and their early layers change little.
optimizer = get_config("common/optim.py").AdamW
optimizer.params.update(lr_multipliers={}, layer_decay=0.8)
