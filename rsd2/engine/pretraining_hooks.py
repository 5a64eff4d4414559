"""Hooks for self-distillation: moving average of the target, schedule of the weight decay."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import torch
from detectron2.engine import HookBase
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .errors import RunError
from .hooks import unwrap

_logger = logging.getLogger(__name__)


class TargetModel(Protocol):
    """A model with a target network that follows it as a moving average."""

    progress: float
    """Share of the training that is done, in [0, 1)."""

    def update_target(self, momentum: float) -> None:
        """Move the target towards the model, keeping the momentum's share of its old weights."""


class TargetUpdate(HookBase):
    """Tells a model the progress of its training, and updates its target after each step.

    Source: I-JEPA (arXiv 2301.08243), appendix A.1: the momentum rises linearly, per iteration. In
    a short training such a target keeps much of its initial weights; a half-life in steps says how
    much, whatever the length.
    The averaged weights are part of the model, so they are saved and resumed with it; the momentum
    follows from the iteration.
    """

    def __init__(
        self, start: float = 0.996, end: float = 1.0, half_life: float | None = None
    ) -> None:
        """Set the momentum at the start and at the end, or one momentum by its half-life.

        Args:
            start: share of the old average in the new one in the first step, in [0, 1].
            end: the same share after the last step; 1 keeps the old average.
            half_life: number of steps, > 0, after which half of the old average is left; replaces
                ``start`` and ``end`` if given.

        Raises:
            RunError: a number is out of range.
        """
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise RunError(f"the momentum lies in [0, 1], got start {start} and end {end}")
        if half_life is not None:
            if not half_life > 0:
                raise RunError(f"half_life must be more than 0 steps, got {half_life}")
            start = end = 0.5 ** (1 / half_life)
        self._start, self._end = start, end

    def before_train(self) -> None:
        """Warn if the target never moves, because what inherits it then inherits no training."""
        if self._start == self._end == 1:
            _logger.warning(
                "The momentum is 1 in every step, so the target keeps its initial weights; what is "
                "trained afterwards should inherit the network that learns, and not the target."
            )

    def before_step(self) -> None:
        """Set the model's ``progress`` in [0, 1)."""
        self._model().progress = self._progress()

    def after_step(self) -> None:
        """Call the model's ``update_target(momentum)``."""
        momentum = self._start + self._progress() * (self._end - self._start)
        self._model().update_target(momentum)
        self.trainer.storage.put_scalar("target_momentum", momentum, smoothing_hint=False)

    def _model(self) -> TargetModel:
        # A type checker cannot know that the model has a target; only the user's config does.
        model: Any = unwrap(self.trainer.model)
        return model

    def _progress(self) -> float:
        return self.trainer.iter / self.trainer.max_iter


class WeightDecaySchedule(HookBase):
    """Multiplies the weight decay of every parameter group; a weight decay of 0 stays 0."""

    def __init__(self, scheduler: ParamScheduler) -> None:
        """Set the schedule.

        Args:
            scheduler: schedule that multiplies each group's own weight decay, over the progress
                [0, 1).
        """
        self._scheduler = scheduler

    def before_train(self) -> None:
        """Keep each group's own weight decay in the optimizer, which is saved with checkpoints."""
        for group in self.trainer.optimizer.param_groups:
            group.setdefault("initial_weight_decay", group["weight_decay"])

    def before_step(self) -> None:
        """Set the weight decay of the step."""
        factor = self._scheduler(self.trainer.iter / self.trainer.max_iter)
        for group in self.trainer.optimizer.param_groups:
            group["weight_decay"] = group["initial_weight_decay"] * factor

        # One number for the log: groups without weight decay would hide it.
        decay = max(group["weight_decay"] for group in self.trainer.optimizer.param_groups)
        self.trainer.storage.put_scalar("weight_decay", decay, smoothing_hint=False)


@torch.no_grad()
def move_average(average: nn.Module, current: nn.Module, momentum: float) -> None:
    """Move the parameters of an average towards those of a model of the same architecture.

    Args:
        average: model changed in place to ``momentum * average + (1 - momentum) * current``.
        current: model on the same device.
        momentum: share of the old average, in [0, 1].
    """
    pairs = list(zip(average.parameters(), current.parameters(), strict=True))
    get_ema_multi_avg_fn(momentum)(*map(list, zip(*pairs)), None)
