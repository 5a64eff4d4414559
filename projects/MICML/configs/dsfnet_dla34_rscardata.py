"""DSFNet on RsCarData: MICML without motion, in DSFNet's batches of 4."""

from rsd2.config import get_config

from .models.micml_dla34 import model
from .recipes.released import lr_multiplier, optimizer, train

dataloader = get_config("common/data/rscardata.py").dataloader

model.dynamic.motion = None
dataloader.train.total_batch_size = 4
train.max_iter = 55 * 342
train.eval_period = train.checkpointer.period = 5 * 342
