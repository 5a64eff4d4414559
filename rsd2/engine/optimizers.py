"""Optimizers and their parameter groups."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import DictConfig, OmegaConf
from torch import nn

_logger = logging.getLogger(__name__)


def optimizer_params(
    model: nn.Module,
    base_lr: float,
    lr_multipliers: Mapping[str, float] | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters by learning rate and weight decay.

    Args:
        model: whose parameters with ``requires_grad`` are taken.
        base_lr: learning rate of a parameter that no pattern matches, > 0.
        lr_multipliers: factor of ``base_lr`` for parameters whose dotted name contains the
            pattern; the longest matching pattern wins. A pattern without a match is warned of.
        weight_decay: of all parameters; None leaves the optimizer's own.
        weight_decay_norm: of the parameters of normalization layers; None makes no difference.
        weight_decay_bias: of parameters called ``bias``; None makes no difference.

    Returns:
        Parameter groups for a torch optimizer.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    multipliers = dict(lr_multipliers or {})
    patterns = sorted(multipliers, key=len, reverse=True)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise ValueError("the model has no parameter with requires_grad, so nothing can be trained")
    for pattern in patterns:
        if not any(pattern in name for name in names):
            _logger.warning(
                "lr_multipliers: no trainable parameter has %r in its name (modules: %s)",
                pattern,
                ", ".join(name for name, _ in model.named_children()),
            )

    def factor(name: str) -> float:
        return next((multipliers[pattern] for pattern in patterns if pattern in name), 1.0)

    return get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        weight_decay_norm=weight_decay_norm,
        weight_decay_bias=weight_decay_bias,
        lr_factor_func=factor,
    )


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a config.

    Args:
        cfg: a config of an optimizer; ``cfg.params`` is a target that takes ``model``.
        model: to be trained.

    Returns:
        The optimizer. Its options are plain Python values, without config containers, because
        they are saved in checkpoints, which are loaded without free unpickling.
    """
    cfg.params.model = model
    try:
        optimizer = instantiate(cfg)
    finally:
        del cfg.params["model"]
    for group in [optimizer.defaults, *optimizer.param_groups]:
        for key, value in group.items():
            if OmegaConf.is_config(value):
                plain = OmegaConf.to_container(value, resolve=True)
                group[key] = tuple(plain) if isinstance(plain, list) else plain
    return optimizer
