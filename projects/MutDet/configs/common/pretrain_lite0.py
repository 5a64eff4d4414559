"""Pre-training of small models from ImageNet's EfficientNet-Lite0 on pseudo-labels of real images.

The recipe is that of generated scenes, the images are 256 pixels on their long side.
"""

from rsd2.config import get_config

from .pretrain_small import dataloader, lr_multiplier, optimizer, train

_lite0 = get_config("common/models/efficientnet_lite0.py")
backbone, input_shapes, pixels = _lite0.backbone, _lite0.input_shapes, _lite0.pixels

_root = "${oc.env:DETECTRON2_DATASETS,datasets}"
dataloader.train.dataset.folder = f"{_root}/pseudo/unlabelled"
dataloader.train.dataset.image_root = f"{_root}/unlabelled"
dataloader.train.mapper.augmentations[0].update(short_edge_length=256, max_size=256)
dataloader.train.total_batch_size = 4
train.channels_last = True
