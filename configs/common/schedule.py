"""Learning-rate recipes as multipliers of each group's rate, in terms of ``train.max_iter``."""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)

from rsd2.engine import with_warmup

# 36 epochs, with a tenth of the rate after the 32nd. Milestones are fractions of any training.
step = L(with_warmup)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[32], num_updates=36),
    max_iter="${train.max_iter}",
    warmup_iters=500,
    warmup_factor=1 / 3,
)

cosine = L(with_warmup)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    max_iter="${train.max_iter}",
    warmup_iters=500,
    warmup_factor=1 / 3,
)

constant = L(with_warmup)(
    scheduler=L(LinearParamScheduler)(start_value=1.0, end_value=1.0),
    max_iter="${train.max_iter}",
    warmup_iters=500,
    warmup_factor=1 / 3,
)
