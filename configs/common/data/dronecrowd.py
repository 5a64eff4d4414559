"""Loaders and evaluator of DroneCrowd: heads in crops of 512 pixels, whole frames at test."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config
from rsd2.evaluation import DroneCrowdEvaluator

dataloader = get_config("common/data/rscardata.py").dataloader

dataloader.train.dataset.names = "drone_crowd_train"
dataloader.test.dataset.names = "drone_crowd_test"
dataloader.train.mapper.augmentations.insert(
    0, L(T.RandomCrop)(crop_type="absolute", crop_size=[512, 512])
)
dataloader.train.mapper.min_side = 2.0  # the crop leaves slivers of heads
dataloader.test.num_workers = 1
dataloader.evaluator = L(DroneCrowdEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
