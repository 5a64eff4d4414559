"""The ordinary ResNet-50 with SSPNet on TinyPerson, frozen and trained like the other."""

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
