"""Bottom-heavy ResNet-50 on ImageNet; its weights start the detectors."""

from .models.classifier_bh50 import model
from .recipes.imagenet import dataloader, lr_multiplier, optimizer, train
