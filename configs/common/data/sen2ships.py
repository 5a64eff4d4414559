"""Loaders and evaluator of the ports of Sen2Ships, at 10 m and three times enlarged.

``sen2ships/train`` and ``sen2ships/test`` under ``$DETECTRON2_DATASETS`` hold a GeoTIFF and a COCO
file of each port. Nothing is cut: windows are read from the scenes, through the radiometry below,
which ``rsd2 scene`` applies too. Its flag for the same pixels is ``--scale 3``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config
from rsd2.data.mappers.photometric import RandomPhotometricDistortion
from rsd2.data.mappers.transforms import RandomFlipDirection, RandomObjectCrop
from rsd2.data.samplers import ObjectSampler
from rsd2.geo import Radiometry

dataloader = get_config("common/data/dota.py").dataloader

dataloader.train.dataset.names = "sen2ships_train_384_128"
dataloader.test.dataset.names = "sen2ships_test_384_128"
# Most windows of a port show no ship; a fifth of the samples is enough of them.
dataloader.train.sampler = L(ObjectSampler)(dataset="${..dataset}", share=0.8)
dataloader.train.mapper.radiometry = L(Radiometry)(scaling="percentile", percentiles=[1.0, 99.5])
dataloader.test.mapper.radiometry = "${...train.mapper.radiometry}"

# 200 ships: seen from above, each of them at any angle is a new one.
dataloader.train.mapper.augmentations = [
    L(T.RandomRotation)(angle=[-180.0, 180.0], expand=False),
    L(RandomObjectCrop)(crop_size=[256, 256], object_prob=0.8),
    L(RandomFlipDirection)(horizontal=0.25, vertical=0.25, diagonal=0.25),
    L(RandomPhotometricDistortion)(
        brightness=20.0, contrast=[0.7, 1.3], saturation=[0.7, 1.3], hue=8.0, permute_channels=False
    ),
]
dataloader.test.mapper.augmentations = []
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
