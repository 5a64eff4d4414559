"""Loaders of ImageNet, crops of 224 pixels; other sets of labelled images change them.

A project that classifies brings its own evaluator.
"""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.datasets import load_classification
from rsd2.data.mappers.classification_mapper import (
    CenterCrop,
    ClassificationMapper,
    RandomResizedCrop,
)
from rsd2.data.samplers import build_train_loader

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(load_classification)(name="imagenet_train"),
    mapper=L(ClassificationMapper)(
        augmentations=[L(RandomResizedCrop)(size=224), L(T.RandomFlip)(prob=0.5)]
    ),
    total_batch_size=256,
    num_workers=8,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(load_classification)(name="imagenet_val"),
    mapper=L(ClassificationMapper)(
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=256, max_size=100_000),
            L(CenterCrop)(size=224),
        ]
    ),
    batch_size=64,
    num_workers=8,
)
