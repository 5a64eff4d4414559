"""The ordinary ResNet-18 with an ordinary pyramid on generated beaches: the baseline."""

from .models.faster_rcnn_bh18_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.synthetic_tiny import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[2, 2, 2, 2], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
