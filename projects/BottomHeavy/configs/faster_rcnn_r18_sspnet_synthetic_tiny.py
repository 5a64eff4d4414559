"""The ordinary ResNet-18 with SSPNet on generated beaches."""

from .models.faster_rcnn_bh18_sspnet import model
from .recipes.synthetic_tiny import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[2, 2, 2, 2], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
