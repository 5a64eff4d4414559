"""The bottom-heavy stem before the depths of ResNet-50: the effect of the stem alone."""

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.depths = [3, 4, 6, 3]
