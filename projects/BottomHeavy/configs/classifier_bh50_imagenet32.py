"""Bottom-heavy ResNet-50 on ImageNet32: 40 epochs of 5005 batches of 256."""

from .models.classifier_bh50 import model
from .recipes.small_images import dataloader, lr_multiplier, optimizer, train

dataloader.train.dataset.name = "imagenet32_train"
dataloader.test.dataset.name = "imagenet32_val"
dataloader.train.total_batch_size = 256
optimizer.weight_decay = 1e-4
train.max_iter = 40 * 5005
train.eval_period = train.checkpointer.period = 4 * 5005
