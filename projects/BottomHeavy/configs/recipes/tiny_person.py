"""Recipe of every detector on TinyPerson, so that backbones differ in nothing else.

Source: arXiv 2303.11267, its released configuration: 12 epochs in batches of 2, a tenth of the
rate after the 8th and the 11th.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from rsd2.config import get_config

dataloader = get_config("common/data/tiny_person.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

optimizer.lr = 0.002
optimizer.params.weight_decay_norm = None
lr_multiplier.scheduler = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01], milestones=[8, 11], num_updates=12
)
lr_multiplier.warmup_factor = 0.001
# For the paper's 3206 windows; the training's log prints the number of yours.
train.max_iter = 12 * 1603
train.eval_period = train.checkpointer.period = 1603
