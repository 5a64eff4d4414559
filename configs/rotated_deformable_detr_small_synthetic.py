"""The main job on generated data: a small rotated detector on 128-px scenes, on two CPU cores.

``bash tools/demo.sh`` draws the scenes and runs this. The schedule is far shorter than the
paper's, hence the high learning rate, the clipped gradients and the averaged weights.
"""

from rsd2.config import get_config

dataloader = get_config("common/data/synthetic.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

model.num_classes = 7
optimizer.lr = 1e-3
optimizer.fused = True
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters = 100
train.max_iter = 1700
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.eval_period = 0
train.checkpointer.period = 500
