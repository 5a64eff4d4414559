"""SimCLR on crops: the recipe of every embedder, and the model around its backbone.

AdamW at 1e-3, a linear start over 50 steps, then a cosine to 0. The evaluation comes at the end.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.projects.mutdet.embedder_pretraining import ContrastiveEmbedder

model = L(ContrastiveEmbedder)(backbone=None, output="res5", temperature=0.2)
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 1e-3
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters, lr_multiplier.warmup_factor = 50, 1 / 50
train.eval_period = 0
train.checkpointer.update(period=100, max_to_keep=1)
