"""Row 2 of the ablation: DETReg with the contrastive loss, no enhancement.

Row 1 is ``detreg_r50_dota_pretrain.py``, row 5 ``mutdet_r50_dota_pretrain.py``.
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("MutDet/configs/models/mutdet_r50.py").model

model.enhancement = None
model.enhance_embeddings = model.enhance_features = False
model.align_encoder = model.siamese_head = False
