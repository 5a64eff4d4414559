"""Bottom-heavy ResNet-18 of half the width on crops of generated beaches, for a CPU.

Its classes are person, boat and background; its weights start the detectors of generated beaches.
"""

from .models.classifier_bh50 import model
from .recipes.small_images import dataloader, lr_multiplier, optimizer, train

model.backbone.update(depths=[3, 2, 2, 1], bottleneck=False, width=32)
model.num_classes = 3
dataloader.train.dataset.name = "synthetic_tiny_crops_train"
dataloader.test.dataset.name = "synthetic_tiny_crops_val"
dataloader.train.mapper.cached_images = 1000
dataloader.train.num_workers = dataloader.test.num_workers = 0
train.max_iter = 600
train.eval_period = train.checkpointer.period = 300
lr_multiplier.warmup_iters = 100
