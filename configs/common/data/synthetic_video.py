"""Loaders and evaluator of generated videos, drawn by ``tools/make_synthetic.py --kind video``.

The folder ``synthetic_video`` under ``$DETECTRON2_DATASETS`` is registered; draw both splits into
it.
"""

from rsd2.config import get_config

dataloader = get_config("common/data/rscardata.py").dataloader

dataloader.train.dataset.names = "synthetic_video_train"
dataloader.test.dataset.names = "synthetic_video_test"
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.evaluator.protocols = ["distance5", "micml"]
# Flips alone: hundreds of steps are too few to learn distorted colours as well.
dataloader.train.mapper.augmentations.pop()
