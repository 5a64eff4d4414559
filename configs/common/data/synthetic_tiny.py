"""Loaders and evaluator of generated beaches, 256 x 320 pixels.

``tools/make_synthetic.py --kind tiny`` draws them; the folders ``synthetic_tiny/train`` and
``synthetic_tiny/val`` under ``$DETECTRON2_DATASETS`` are registered.
"""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.mappers.box_mapper import BoxDatasetMapper
from rsd2.data.samplers import build_train_loader
from rsd2.evaluation import TinyEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="synthetic_tiny_train", filter_empty=False),
    mapper=L(BoxDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=256, max_size=320),
            L(T.RandomFlip)(prob=0.5),
        ],
        image_format="RGB",
        erase_ignored=True,
    ),
    total_batch_size=4,
    num_workers=0,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="synthetic_tiny_val", filter_empty=False),
    mapper=L(BoxDatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=256, max_size=320)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=0,
)

dataloader.evaluator = L(TinyEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
    max_detections=200,
)
