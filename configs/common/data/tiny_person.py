"""Loaders and evaluator of TinyPerson in windows of 640 x 512 pixels.

Trains on windows that share 30 pixels, enlarged up to 1.5 times; detects in windows that share
100, enlarged 1.5 times, and merges before scoring. ``rsd2/data/datasets/README.md`` says where
the files go.
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
    dataset=L(get_detection_dataset_dicts)(
        names="tiny_person_train_640x512_30", filter_empty=False
    ),
    mapper=L(BoxDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=[512, 768], max_size=960, sample_style="range"
            ),
            L(T.RandomFlip)(prob=0.5),
            L(T.RandomBrightness)(intensity_min=0.9, intensity_max=1.3),
            L(T.RandomContrast)(intensity_min=0.9, intensity_max=1.3),
        ],
        image_format="RGB",
    ),
    total_batch_size=2,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(
        names="tiny_person_test_640x512_100", filter_empty=False
    ),
    mapper=L(BoxDatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=768, max_size=960)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(TinyEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
    max_detections=200,
)
