"""MICML on DroneCrowd, as on RsCarData, since no recipe was published.

A round is a twentieth of its 24,600 training frames. A frame has 145 heads on average, more than
the usual 100 peaks.
"""

from rsd2.config import get_config

from .models.micml_dla34 import model
from .recipes.released import lr_multiplier, optimizer, train

dataloader = get_config("common/data/dronecrowd.py").dataloader

model.top_k = 1000
dataloader.train.total_batch_size = 2
train.max_iter = 55 * 615
train.eval_period = train.checkpointer.period = 5 * 615
