"""Loaders and evaluator of HRSC2016 as DOTA text, images of 320 pixels on their long side.

The folders ``hrsc/train`` and ``hrsc/test`` under ``$DETECTRON2_DATASETS`` are registered as
``hrsc_train`` and ``hrsc_test``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config
from rsd2.data.mappers.photometric import RandomPhotometricDistortion
from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection

dataloader = get_config("common/data/dota.py").dataloader

dataloader.train.dataset.names = "hrsc_train"
dataloader.test.dataset.names = "hrsc_test"
# 430 images are few: other sizes, other sides up and other light make more of them.
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=[192, 288], max_size=400, sample_style="range"),
    L(RandomFlipDirection)(horizontal=0.25, vertical=0.25, diagonal=0.25),
    L(Random90Rotation)(),
    L(RandomPhotometricDistortion)(
        brightness=20.0, contrast=[0.7, 1.3], saturation=[0.7, 1.3], hue=8.0, permute_channels=False
    ),
]
dataloader.test.mapper.augmentations[0].update(short_edge_length=320, max_size=320)
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
