"""Recipe of every model of full size, on any data.

Source: the released programs of MICML and DSFNet: Adam without decay or warm-up, a tenth of the
rate after 30 and 45 of 55 rounds. A round is a twentieth of the batches: with the 27,434 frames of
RsCarData in batches of 2, 685 of them.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from rsd2.config import get_config

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

optimizer.lr = 1.25e-4
optimizer.betas = (0.9, 0.999)
optimizer.weight_decay = 0.0  # which makes it Adam
optimizer.params.lr_multipliers = {}
lr_multiplier.scheduler = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01], milestones=[30, 45], num_updates=55
)
lr_multiplier.warmup_iters = 0
train.max_iter = 55 * 685
train.eval_period = train.checkpointer.period = 5 * 685
