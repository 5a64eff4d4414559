"""Loaders and evaluator of GDIT's airports, planes of 8 to 60 pixels in upright boxes.

The folders ``airport/train``, ``airport/valid`` and ``airport/test`` under
``$DETECTRON2_DATASETS`` are registered as ``airport_train`` and so on; these are their boxes
``_upright``. Choose by ``valid``; it and ``test`` are images of 600 pixels.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config
from rsd2.data.mappers.transforms import Random90Rotation
from rsd2.evaluation import AitodEvaluator

dataloader = get_config("common/data/synthetic_tiny.py").dataloader

dataloader.train.dataset.names = "airport_train_upright"
dataloader.test.dataset.names = "airport_valid_upright"
# Parts in their own size: a plane of 8 pixels must not become smaller.
dataloader.train.mapper.augmentations = [
    L(T.RandomCrop)(crop_type="absolute", crop_size=[256, 256]),
    L(T.RandomFlip)(prob=0.5),
    L(Random90Rotation)(),
]
dataloader.test.mapper.augmentations = []
dataloader.train.mapper.erase_ignored = False
dataloader.evaluator = L(AitodEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
