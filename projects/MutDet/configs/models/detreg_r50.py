"""Rotated DETReg on ResNet-50: the detector, and the embedding of every object as a target."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.projects.mutdet.alignment import EmbeddingRegression
from rsd2.projects.mutdet.detreg import DETReg
from rsd2.projects.mutdet.quirks import MutDetQuirks

model = L(DETReg)(
    detector=get_config("common/models/rotated_deformable_detr_r50.py").model,
    alignment=L(EmbeddingRegression)(distance="mse", weight=1.0),
    embedding_dim=256,
    classes="clusters",
    max_objects="${.detector.num_queries}",
    choice="random",
    align_denoising=False,
    quirks=L(MutDetQuirks)(),
)
model.detector.num_classes = 256
