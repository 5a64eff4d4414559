"""The ordinary ResNet-50 with an ordinary pyramid on TinyPerson: the baseline of both ideas."""

from .models.faster_rcnn_bh50_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
