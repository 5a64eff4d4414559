"""Loaders and evaluator of KIT AIS: cars of about 8 pixels in clips of 5 frames.

``kit_ais`` under ``$DETECTRON2_DATASETS`` holds ``images`` and ``annotations_<split>.json``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config

dataloader = get_config("common/data/rscardata.py").dataloader

dataloader.train.dataset.names = "kit_ais_train"
dataloader.test.dataset.names = "kit_ais_test"
# Two videos of two sizes: parts of one size make a batch.
dataloader.train.mapper.augmentations.insert(
    0, L(T.RandomCrop)(crop_type="absolute", crop_size=[112, 256])
)
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.evaluator.protocols = ["distance5", "micml"]
