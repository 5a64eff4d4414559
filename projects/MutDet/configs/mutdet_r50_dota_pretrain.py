"""MutDet pre-training on pseudo-labels of DOTA-v1.0 tiles.

train.init_checkpoint=FILE          ImageNet weights, converted by tools/convert_checkpoint.py
dataloader.train.dataset.folder=... of pseudo-labels with embeddings
model.detector.num_classes=K        clusters of the pseudo-labels
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("MutDet/configs/models/mutdet_r50.py").model
