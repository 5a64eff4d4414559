"""Loader of pseudo-labels with embeddings: DOTA-v1.0 tiles of 800 pixels, shown at 1024."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.datasets.pseudo import get_pseudo_dicts
from rsd2.data.mappers.transforms import RandomFlipDirection
from rsd2.data.samplers import build_train_loader
from rsd2.projects.mutdet.embedding_mapper import EmbeddingDatasetMapper

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_pseudo_dicts)(
        folder="${oc.env:DETECTRON2_DATASETS,datasets}/pseudo/dota_v1.0_train_800_200",
        image_root="${oc.env:DETECTRON2_DATASETS,datasets}/dota/v1.0/tiles/train_800_200/images",
        classes="${model.classes}",
    ),
    mapper=L(EmbeddingDatasetMapper)(
        is_train=True,
        embedding_dim="${model.embedding_dim}",
        min_side=0.0,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=1024),
            L(RandomFlipDirection)(horizontal=0.25, vertical=0.25, diagonal=0.25),
        ],
        image_format="RGB",
    ),
    total_batch_size=2,
    num_workers=4,
)
