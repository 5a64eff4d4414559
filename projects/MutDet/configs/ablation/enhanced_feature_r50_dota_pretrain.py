"""Row 4 of the ablation: the decoder reads the enhanced features, and nothing else."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("MutDet/configs/models/mutdet_r50.py").model

model.align_encoder = model.siamese_head = False
