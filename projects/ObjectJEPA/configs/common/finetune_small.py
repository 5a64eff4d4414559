"""Fine-tuning of the small detectors on generated scenes, on two CPU cores: one arm of the study.

As in ``finetune.py``, but far shorter: hence the high rate and the averaged weights.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.weights.inheritance import Inheritance

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

optimizer.lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.fused = True
optimizer.params.update(lr_multipliers={}, layer_decay=0.9, weight_decay_norm=0.0)
lr_multiplier.warmup_iters = 100
train.max_iter = 1500
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.eval_period = 0
train.checkpointer.period = 500
train.checkpointer.max_to_keep = 2
train.init_inherit = L(Inheritance)(
    parts=["backbone.net"],
    model_part="backbone.net",
    file_part="target_encoder",
    starts_anew=[],
    initial_if_absent=[],
    averaged=False,
)
