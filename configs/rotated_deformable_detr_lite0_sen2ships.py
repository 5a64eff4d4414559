"""Small rotated deformable DETR from ImageNet's EfficientNet-Lite0 on ships in Sentinel-2 scenes.

    rsd2 get-weights efficientnet_lite0
    rsd2 train --config-file configs/rotated_deformable_detr_lite0_sen2ships.py

``rotated_faster_rcnn_lite0_sen2ships.py`` is its peer of two stages.
"""

from rsd2.config import get_config

from .rotated_deformable_detr_lite0_hrsc import lr_multiplier, model, optimizer, train

dataloader = get_config("common/data/sen2ships.py").dataloader
