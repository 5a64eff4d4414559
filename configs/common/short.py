"""A short training on a CPU: AdamW, cosine, clipped gradients, averaged weights, channels last.

For detectors whose backbone has pre-trained weights; ``train.max_iter`` is the experiment's.
"""

from rsd2.config import get_config

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 7e-4
optimizer.fused = True
# Layers of a timm backbone, which are pre-trained, change less than new ones.
optimizer.params.lr_multipliers = {".net.": 0.3}
lr_multiplier.warmup_iters = 100
train.clip_grad.enabled, train.clip_grad.max_norm = True, 5.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.995, 200
train.channels_last = True
train.eval_period = 0
train.checkpointer.update(period=100, max_to_keep=3)
