"""SimCLR on crops: model, views and recipe of every embedder; backbone and crops are its own.

AdamW at 1e-3, a linear start over 50 steps, then a cosine to 0. The evaluation comes at the end.
"""

from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from rsd2.config import get_config
from rsd2.data.samplers import build_train_loader
from rsd2.projects.mutdet.embedder_data import CropViewMapper
from rsd2.projects.mutdet.embedder_pretraining import ContrastiveEmbedder

model = L(ContrastiveEmbedder)(backbone=None, output="res5", temperature=0.2)
dataloader = OmegaConf.create()
dataloader.train = L(build_train_loader)(
    dataset=None,
    mapper=L(CropViewMapper)(size=48, is_train=True),
    total_batch_size=64,
    num_workers=0,
)
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 1e-3
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters, lr_multiplier.warmup_factor = 50, 1 / 50
train.eval_period = 0
train.checkpointer.update(period=100, max_to_keep=1)
