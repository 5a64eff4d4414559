"""Recipe of every backbone's pre-training on ImageNet: 100 epochs of 5005 batches of 256.

Source: arXiv 1512.03385, section 3.4, with a tenth of the rate after epochs 30, 60 and 90.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from rsd2.config import get_config
from rsd2.evaluation import ClassificationEvaluator

dataloader = get_config("common/data/imagenet.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

dataloader.evaluator = L(ClassificationEvaluator)()
optimizer.lr = 0.1
optimizer.params.weight_decay_norm = None
lr_multiplier.scheduler = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01, 0.001], milestones=[30, 60, 90], num_updates=100
)
lr_multiplier.warmup_iters = 0
train.max_iter = 100 * 5005
train.eval_period = train.checkpointer.period = 10 * 5005
