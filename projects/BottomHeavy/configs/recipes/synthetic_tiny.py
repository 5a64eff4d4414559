"""Recipe of every small detector on generated beaches, from random weights on a CPU."""

from rsd2.config import get_config

dataloader = get_config("common/data/synthetic_tiny.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {}
optimizer.params.weight_decay_norm = 0.0
lr_multiplier.warmup_iters = 100
train.max_iter = 800
train.clip_grad.enabled, train.clip_grad.max_norm = True, 10.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.eval_period = 80
train.checkpointer.period = 80
train.checkpointer.max_to_keep = 2
