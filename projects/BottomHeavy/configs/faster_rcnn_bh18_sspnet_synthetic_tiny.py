"""Bottom-heavy ResNet-18 with SSPNet on generated beaches."""

from .models.faster_rcnn_bh18_sspnet import model
from .recipes.synthetic_tiny import dataloader, lr_multiplier, optimizer, train
