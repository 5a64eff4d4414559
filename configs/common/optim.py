"""Optimizers; the tool puts the model into ``optimizer.params.model``."""

import torch
from detectron2.config import LazyCall as L

from rsd2.engine import optimizer_params

AdamW = L(torch.optim.AdamW)(
    params=L(optimizer_params)(
        base_lr="${..lr}",
        # The longest pattern that is part of a parameter's name wins.
        lr_multipliers={"backbone": 0.1, "sampling_offsets": 0.1},
        weight_decay_norm=None,
    ),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=1e-4,
)

SGD = L(torch.optim.SGD)(
    params=L(optimizer_params)(
        base_lr="${..lr}",
        lr_multipliers={},
        weight_decay_norm=0.0,
    ),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)
