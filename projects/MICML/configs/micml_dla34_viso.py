"""MICML on the cars of VISO, as on RsCarData: a round is a twentieth of its 9,417 frames."""

from rsd2.config import get_config

from .models.micml_dla34 import model
from .recipes.released import lr_multiplier, optimizer, train

dataloader = get_config("common/data/viso.py").dataloader

dataloader.train.total_batch_size = 2
train.max_iter = 55 * 235
train.eval_period = train.checkpointer.period = 5 * 235
