"""Bottom-heavy ResNet-18 with an ordinary pyramid on generated beaches."""

from .models.faster_rcnn_bh18_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.synthetic_tiny import dataloader, lr_multiplier, optimizer, train

_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
