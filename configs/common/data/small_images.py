"""Loaders of CIFAR-100's labelled images of 32 pixels, shifted by up to 4 pixels and flipped."""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.datasets import load_classification
from rsd2.data.mappers.classification_mapper import ClassificationMapper, RandomShift
from rsd2.data.samplers import build_train_loader

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(load_classification)(name="cifar100_train"),
    mapper=L(ClassificationMapper)(
        augmentations=[L(RandomShift)(pixels=4), L(T.RandomFlip)(prob=0.5)]
    ),
    total_batch_size=128,
    num_workers=2,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(load_classification)(name="cifar100_test"),
    mapper=L(ClassificationMapper)(augmentations=[]),
    batch_size=128,
    num_workers=2,
)
