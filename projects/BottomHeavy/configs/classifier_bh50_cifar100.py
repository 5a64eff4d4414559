"""Bottom-heavy ResNet-50 on CIFAR-100, every stride kept: the last map of an image is one pixel.

For maps of 32, 16, 8 and 4 pixels: ``model.backbone.stem_pool=false
model.backbone.stage_strides=[1,2,2,2]``; the weights fit the detectors either way.
"""

from .models.classifier_bh50 import model
from .recipes.small_images import dataloader, lr_multiplier, optimizer, train

model.num_classes = 100
