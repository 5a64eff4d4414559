"""Rotated DETReg pre-training of the small detector on generated scenes, for study and demo.

train.init_checkpoint=FILE          of the small backbone, trained on crops
model.detector.num_classes=K        clusters of the pseudo-labels
model.embedding_dim=D               components of the embeddings
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain_small.py",
    ("dataloader", "optimizer", "lr_multiplier", "train"),
)
model = get_config("MutDet/configs/models/detreg_r50.py").model

model.detector = get_config("common/models/rotated_deformable_detr_small.py").model
model.detector.num_classes = 64
model.embedding_dim = 128
