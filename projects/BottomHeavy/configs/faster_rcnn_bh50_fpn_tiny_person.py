"""Bottom-heavy ResNet-50 with an ordinary pyramid on TinyPerson."""

from .models.faster_rcnn_bh50_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
