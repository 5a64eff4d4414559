"""Fine-tuning of a detector whose backbone ObjectJEPA has pre-trained: recipe and inheritance.

AdamW at 1e-4, rates falling by 0.75 from layer to layer, 12 epochs with a tenth of the rate after
the 8th and the 11th, as plain transformers are fine-tuned on overhead imagery (RVSA, arXiv
2208.03987).
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from rsd2.config import get_config
from rsd2.weights.inheritance import Inheritance

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

optimizer.weight_decay = 0.05
optimizer.params.update(
    lr_multipliers={}, layer_decay=0.75, weight_decay_norm=0.0, weight_decay_positions=0.0
)
lr_multiplier.scheduler = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01], milestones=[8, 11], num_updates=12
)
train.max_iter, train.epochs = None, 12
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
# The last checkpoint is the result; choosing the best one on the test set would be cheating.
train.eval_period = 0

# Set train.init_checkpoint; without it, training starts from random weights.
train.init_inherit = L(Inheritance)(
    parts=["backbone.net"],
    model_part="backbone.net",
    # or context_encoder; of a file of tools/convert_checkpoint.py: backbone.net
    file_part="target_encoder",
    starts_anew=[],
    # pre-training encodes sequences of tokens, which have no relative positions
    initial_if_absent=["rel_pos_h", "rel_pos_w"],
    averaged=False,
)
