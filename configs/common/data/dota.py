"""Loaders and evaluator of DOTA-v1.0 tiles, 800 pixels wide with 200 of overlap.

``tools/prepare_dota.py`` makes the tiles, ``rsd2/data/datasets/README.md`` says where they go. For
tiles cropped at load time append ``_virtual`` to the names and give the mapper of the training
loader a ``decoded_cache_dir``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.mappers.transforms import RandomFlipDirection
from rsd2.data.samplers import build_train_loader
from rsd2.data.splits import get_dataset_dicts
from rsd2.evaluation import DotaEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_dataset_dicts)(
        names="dota_v1.0_train_800_200",
        filter_empty=False,
        # A share of the images, nested in larger shares of the same seed; or a list of them.
        fraction=1.0,
        split_seed=0,
        split_file=None,
    ),
    mapper=L(RotatedDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=800, max_size=800),
            L(RandomFlipDirection)(horizontal=0.25, vertical=0.25, diagonal=0.25),
        ],
        image_format="RGB",
    ),
    total_batch_size=2,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="dota_v1.0_val_800_200", filter_empty=False),
    mapper=L(RotatedDatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=800)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(DotaEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
