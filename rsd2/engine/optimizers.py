"""Optimizers and their parameter groups."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .errors import RunError

_logger = logging.getLogger(__name__)
_BLOCK = re.compile(r"backbone\.(?:.+\.)?blocks\.(\d+)\.")


def optimizer_params(
    model: nn.Module,
    base_lr: float,
    lr_multipliers: Mapping[str, float] | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    weight_decay_positions: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters by learning rate and weight decay.

    Source of ``layer_decay``: ViTDet (arXiv 2203.16527), appendix A.2, after BEiT.

    Args:
        model: model whose parameters with ``requires_grad`` are grouped.
        base_lr: learning rate of a parameter that no pattern matches, > 0.
        lr_multipliers: pattern -> factor of ``base_lr`` for parameters whose dotted name contains
            the pattern; the longest matching pattern wins. A pattern without a match is logged.
        weight_decay: weight decay of all parameters; None leaves the optimizer's own.
        weight_decay_norm: weight decay of the parameters of normalization layers; None treats
            them like the others.
        weight_decay_bias: weight decay of parameters called ``bias``; None treats them like
            the others.
        weight_decay_positions: weight decay of learned tables of absolute positions,
            ``pos_embed``; None treats them like the others.
        layer_decay: decay per block, in (0, 1]; for a transformer of n blocks under ``backbone``
            the rate of block i = 0 ... n - 1 is multiplied by ``layer_decay ** (n - i)``, that of
            its patch embedding and positions by ``layer_decay ** (n + 1)``, on top of
            ``lr_multipliers``. A backbone with a method ``layer_depths``, like `TimmBackbone`,
            says itself how deep its parameters lie, and may be of any family.

    Returns:
        Parameter groups for a torch optimizer.

    Raises:
        RunError: the model has no trainable parameter, or ``layer_decay`` is out of range or
            the model has no backbone of blocks that it could apply to.
    """
    multipliers = dict(lr_multipliers or {})
    patterns = sorted(multipliers, key=len, reverse=True)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise RunError("the model has no parameter with requires_grad, so nothing can be trained")
    for pattern in patterns:
        if not any(pattern in name for name in names):
            _logger.warning(
                "lr_multipliers: no trainable parameter has %r in its name (modules: %s)",
                pattern,
                ", ".join(name for name, _ in model.named_children()),
            )

    # Depths matter only with a decay; most models have no transformer to count.
    depths = _stated_depths(model) if layer_decay != 1.0 else {}
    depth = _transformer_depth(model) if layer_decay != 1.0 else 0
    depth = max(depths.values(), default=depth)
    if layer_decay != 1.0 and not (depth and 0.0 < layer_decay < 1.0):
        raise RunError(
            "layer_decay lies in (0, 1] and, below 1, needs a model whose backbone has transformer "
            f"blocks; got {layer_decay} and {depth} blocks"
        )

    def factor(name: str) -> float:
        # The longest pattern comes first in the list, so the most specific one wins.
        multiplier = next((multipliers[pattern] for pattern in patterns if pattern in name), 1.0)
        if name in depths:
            return multiplier * layer_decay ** (depth + 1 - depths[name])
        return multiplier * (1.0 if depths else get_vit_lr_decay_rate(name, layer_decay, depth))

    positions = {"weight_decay": weight_decay_positions}

    return get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        weight_decay_norm=weight_decay_norm,
        weight_decay_bias=weight_decay_bias,
        lr_factor_func=factor,
        overrides=None if weight_decay_positions is None else {"pos_embed": positions},
    )


def _stated_depths(model: nn.Module) -> dict[str, int]:
    """Collect the depths that backbones state themselves, by the names of the parameters."""
    depths = {}
    for prefix, module in model.named_modules():
        if hasattr(module, "layer_depths"):
            depths.update({f"{prefix}.{key}": one for key, one in module.layer_depths().items()})
    return depths


def _transformer_depth(model: nn.Module) -> int:
    """Count the blocks of the transformer under ``backbone``, frozen ones too; 0 without one."""
    names = (name for name, _ in model.named_parameters())
    found = [int(match[1]) for name in names if (match := _BLOCK.match(name))]
    return max(found, default=-1) + 1


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a config.

    Args:
        cfg: config of an optimizer; ``cfg.params`` is a target that takes ``model``.
        model: model to train.

    Returns:
        The optimizer. Its options are plain Python values, without config containers, because
        they are saved in checkpoints, which are loaded without free unpickling.
    """
    # The config cannot hold a module for good: it is saved as text.
    cfg.params.model = model
    try:
        optimizer = instantiate(cfg)
    finally:
        del cfg.params["model"]

    for group in [optimizer.defaults, *optimizer.param_groups]:
        for key, value in group.items():
            if OmegaConf.is_config(value):
                plain = OmegaConf.to_container(value, resolve=True)
                # Torch compares betas as a tuple.
                group[key] = tuple(plain) if isinstance(plain, list) else plain
    return optimizer
