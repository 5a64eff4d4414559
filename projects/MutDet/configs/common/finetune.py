"""Fine-tuning of the plain detector from a checkpoint of MutDet or DETReg: recipe and inheritance.

The recipe is the official one: AdamW, weight decay 1e-5, gradients clipped at 35, 36 epochs with a
tenth of the rate after the 32nd. For 24 or 12 epochs the tenth begins at the same fraction of the
training, which the paper does not state.

The detector is ours: it adds noise to the angles of denoising boxes and neither attends to nor
trains denoising slots without an object; ``mutdet_r50_dior_r_finetune_official.py`` does as the
released program.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.weights.inheritance import Inheritance

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train

optimizer.weight_decay = 1e-5
train.clip_grad.enabled, train.clip_grad.max_norm = True, 35.0
train.max_iter, train.epochs = None, 36
# The last checkpoint is the result; choosing the best one on the test set would be cheating.
train.eval_period = 0

# Set train.init_checkpoint. From a backbone alone: train.init_inherit.parts=[backbone].
train.init_inherit = L(Inheritance)(
    pretraining_only=["enhancement", "embedding_head", "token_embedding_head"],
    starts_anew=["heads.class_heads", "denoising.label_embedding"],
    parts=None,
    averaged=False,
    # "repeat", "random" or a list if the pre-training had fewer layers, as the official one has.
    encoder_layers=None,
    decoder_layers=None,
    keep_objectness=False,
    official_head_positions=False,
)
