"""The ordinary ResNet-50 on ImageNet, trained like the bottom-heavy one."""

from .models.classifier_bh50 import model
from .recipes.imagenet import dataloader, lr_multiplier, optimizer, train

model.backbone.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
