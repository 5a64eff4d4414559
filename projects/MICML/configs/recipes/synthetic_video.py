"""Recipe of every small model on generated videos, from random weights on a CPU."""

from rsd2.config import get_config

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 2e-3
optimizer.weight_decay = 1e-4
optimizer.params.lr_multipliers = {}
optimizer.params.weight_decay_norm = 0.0
lr_multiplier.warmup_iters = 50
train.max_iter = 600
train.clip_grad.enabled, train.clip_grad.max_norm = True, 10.0
train.eval_period = 0
train.checkpointer.period = 100
train.checkpointer.max_to_keep = 2
