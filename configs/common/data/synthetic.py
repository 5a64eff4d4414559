"""Loaders and evaluator of generated scenes (``tools/make_synthetic.py``), 128 pixels wide.

The folders ``synthetic/train`` and ``synthetic/val`` under ``$DETECTRON2_DATASETS`` are registered
as ``synthetic_train`` and ``synthetic_val``.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.mappers.transforms import Random90Rotation

dataloader = get_config("common/data/dota.py").dataloader

dataloader.train.dataset.names = "synthetic_train"
dataloader.test.dataset.names = "synthetic_val"
dataloader.train.mapper.augmentations[0].short_edge_length = 128
dataloader.train.mapper.augmentations[0].max_size = 128
dataloader.train.mapper.augmentations.append(L(Random90Rotation)())
dataloader.test.mapper.augmentations[0].short_edge_length = 128
dataloader.test.mapper.augmentations[0].max_size = 128
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
