"""Loaders and evaluator of generated scenes of 128 pixels with upright boxes, AP by object size.

``tools/make_synthetic.py`` draws them, see ``synthetic.py``; AI-TOD's evaluator scores them.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.config import get_config
from rsd2.data.mappers.transforms import Random90Rotation
from rsd2.data.splits import get_dataset_dicts
from rsd2.evaluation import AitodEvaluator

dataloader = get_config("common/data/synthetic_tiny.py").dataloader

dataloader.train.dataset = L(get_dataset_dicts)(
    names="synthetic_train_upright",
    filter_empty=False,
    fraction=1.0,
    split_seed=0,
    split_file=None,
)
dataloader.test.dataset.names = "synthetic_val_upright"
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=128, max_size=128),
    L(T.RandomFlip)(prob=0.5),
    L(Random90Rotation)(),
]
dataloader.test.mapper.augmentations[0].update(short_edge_length=128, max_size=128)
dataloader.train.mapper.erase_ignored = False
dataloader.train.total_batch_size = 8
dataloader.evaluator = L(AitodEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
