"""Loaders and evaluator of AI-TOD, images of 800 x 800 pixels: trainval and test."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.evaluation import AitodEvaluator

dataloader = get_config("common/data/tiny_person.py").dataloader

dataloader.train.dataset.names = "aitod_trainval"
dataloader.test.dataset.names = "aitod_test"
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=800, max_size=800, sample_style="choice"
)
dataloader.test.mapper.augmentations[0].update(short_edge_length=800, max_size=800)
dataloader.evaluator = L(AitodEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
