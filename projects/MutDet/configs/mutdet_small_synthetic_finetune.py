"""Fine-tuning of the small detector on generated scenes: one arm of the study and of the demo.

train.init_checkpoint=FILE                      of a pre-training, or of the backbone alone
train.init_inherit.parts=[backbone]             then this: nothing but the backbone
dataloader.train.dataset.fraction=0.1           of the labels
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train

dataloader = get_config("common/data/synthetic.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model

model.num_classes = 7
# Far shorter than the paper's, hence the high rate, the clipped gradients and the averaged weights.
optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters = 100
train.max_iter, train.epochs = 1700, None
train.clip_grad.max_norm = 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.checkpointer.period = 500
