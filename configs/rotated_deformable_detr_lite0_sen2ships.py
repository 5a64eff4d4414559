"""Small rotated deformable DETR from EfficientNet-Lite0 on ships in Sentinel-2 scenes.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_deformable_detr_lite0_sen2ships.py

``rotated_faster_rcnn_lite0_sen2ships.py`` is its peer of two stages. Map with ``rsd2 scene --window
256``, the size of its parts of training.
"""

from rsd2.config import get_config

_lite0 = get_config("common/models/efficientnet_lite0.py")
_recipe = get_config("common/short.py")
dataloader = get_config("common/data/sen2ships.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model
optimizer, lr_multiplier, train = _recipe.optimizer, _recipe.lr_multiplier, _recipe.train

model.backbone, model.neck.input_shapes = _lite0.backbone, _lite0.input_shapes
model.pixel_mean, model.pixel_std = _lite0.pixels.mean, _lite0.pixels.std
model.num_classes = 1

# A DETR measures boxes in shares of the image: windows must be as large as the parts of training.
dataloader.test.dataset.names = "sen2ships_test_256_96"

# Chosen on a part of HRSC2016's training images.
optimizer.lr = 4e-4
train.clip_grad.max_norm = 1.0
# About 16 minutes of CPU time.
train.max_iter = 2200
