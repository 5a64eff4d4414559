"""Pre-training of the small models on pseudo-labels of generated scenes, on two CPU cores."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.mappers.transforms import Random90Rotation
from rsd2.weights.inheritance import Inheritance

dataloader = get_config("MutDet/configs/common/pseudo.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

dataset = dataloader.train.dataset
dataset.folder = "${oc.env:DETECTRON2_DATASETS,datasets}/pseudo/synthetic_train"
dataset.image_root = "${oc.env:DETECTRON2_DATASETS,datasets}/synthetic/train/images"
dataloader.train.mapper.augmentations[0].update(short_edge_length=128, max_size=128)
dataloader.train.mapper.augmentations.append(L(Random90Rotation)())
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0

# Far shorter than the paper's, hence the high rate, the clipped gradients and the averaged weights.
optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {}
lr_multiplier.warmup_iters = 100
train.max_iter = 600
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
train.ema.enabled, train.ema.decay, train.ema.warmup = True, 0.99, 100
train.eval_period = 0
train.checkpointer.period = 200
train.init_inherit = L(Inheritance)(parts=["backbone"], averaged=False)
