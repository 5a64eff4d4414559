"""The stem of ResNet-50 before the bottom-heavy depths: the effect of the depths alone."""

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2)
