"""Pre-training on pseudo-labels, the official recipe, and the weights of the frozen backbone.

AdamW at 1e-4 with weight decay 1e-5, gradients clipped at 35, 36 epochs with a tenth of the rate
after the 32nd. There is nothing to evaluate: fine-tuning shows the worth of a pre-training.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.weights.inheritance import Inheritance

dataloader = get_config("MutDet/configs/common/pseudo.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

optimizer.weight_decay = 1e-5
optimizer.params.lr_multipliers = {"sampling_offsets": 0.1}
train.clip_grad.enabled, train.clip_grad.max_norm = True, 35.0
train.max_iter, train.epochs = None, 36
train.eval_period = 0

# train.init_checkpoint sets the frozen backbone; random features teach nothing.
train.init_inherit = L(Inheritance)(parts=["backbone"], averaged=False)
