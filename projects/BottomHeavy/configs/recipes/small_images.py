"""Recipe of all pre-training on images of 32 pixels: 200 epochs of 391 batches of 128."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.evaluation import ClassificationEvaluator

dataloader = get_config("common/data/small_images.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

dataloader.evaluator = L(ClassificationEvaluator)()
optimizer.lr = 0.1
optimizer.weight_decay = 5e-4
optimizer.params.weight_decay_norm = None
train.max_iter = 200 * 391
train.eval_period = train.checkpointer.period = 20 * 391
