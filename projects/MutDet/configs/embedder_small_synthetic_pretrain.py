"""The small detector's backbone on crops of generated scenes, drawn when the training starts.

dataloader.train.dataset.scene_seed=SEED    of scenes that no other data have
dataloader.train.num_workers=N              processes that cut views
optimizer.lr=0 train.max_iter=1             measures random weights
"""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader

from rsd2.config import get_config
from rsd2.projects.mutdet.embedder_data import CropViewMapper, draw_crops, draw_objects
from rsd2.projects.mutdet.embedder_pretraining import NeighbourEvaluator

from .common.embedder import dataloader, lr_multiplier, model, optimizer, train

model.backbone = get_config("common/models/rotated_deformable_detr_small.py").model.backbone
model.backbone.out_features = ["res5"]

dataloader.train.dataset = L(draw_crops)(
    scenes=400, image_size=128, scene_seed=9001, min_crops="${..total_batch_size}"
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(draw_objects)(
        scenes=100, image_size="${dataloader.train.dataset.image_size}", scene_seed=9002
    ),
    mapper=L(CropViewMapper)(size="${dataloader.train.mapper.size}", is_train=False),
    batch_size=64,
    num_workers=0,
)
dataloader.evaluator = L(NeighbourEvaluator)()
train.max_iter = 600
