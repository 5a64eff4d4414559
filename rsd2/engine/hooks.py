"""Hooks: average of the weights, checkpoints, stopping on a signal."""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .errors import RunError

_logger = logging.getLogger(__name__)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, or the model itself.

    Args:
        model: model, wrapped or not.

    Returns:
        The inner module.
    """
    return model.module if isinstance(model, DistributedDataParallel) else model


class ModelEMA:
    """An exponential moving average of a model's weights and floating-point buffers.

    The decay of update t (counted from 1) is ``decay * (1 - exp(-t / warmup))``, so that the
    average soon forgets the random start.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998, warmup: float = 2000) -> None:
        """Copy the model.

        Args:
            model: model to average.
            decay: share of the old average in the new one, in [0, 1).
            warmup: number of updates over which the decay rises, >= 0; 0 uses ``decay`` from the
                start.

        Raises:
            RunError: a number is out of range.
        """
        if not 0 <= decay < 1 or warmup < 0:
            raise RunError(
                f"train.ema needs decay in [0, 1) and warmup >= 0, got {decay} and {warmup}"
            )

        self.model = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)

        self.updates = 0
        self._decay, self._warmup = decay, warmup

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards a model.

        Args:
            model: model of the same architecture, on any device.
        """
        self.updates += 1
        ramp = 1 - math.exp(-self.updates / self._warmup) if self._warmup else 1.0

        pairs = list(_tensor_pairs(self.model, unwrap(model)))
        floating = [(a, b.to(a.device)) for a, b in pairs if a.is_floating_point()]

        averages, currents = zip(*floating) if floating else ((), ())
        if averages:
            get_ema_multi_avg_fn(self._decay * ramp)(averages, currents, self.updates)
        # Counters cannot be averaged, so they are copied.
        for average, current in pairs:
            if not average.is_floating_point():
                average.copy_(current)

    @torch.no_grad()
    def reset(self, model: nn.Module) -> None:
        """Start again from a model's present weights.

        Args:
            model: model of the same architecture.
        """
        self.updates = 0
        for average, current in _tensor_pairs(self.model, unwrap(model)):
            average.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged ``model`` state and the number of ``updates``."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue an average.

        Args:
            state: result of :meth:`state_dict`.
        """
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def _tensor_pairs(a: nn.Module, b: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    # The order of the modules, which both models share.
    first = [*a.parameters(), *a.buffers()]
    return list(zip(first, [*b.parameters(), *b.buffers()], strict=True))


class EMAHook(HookBase):
    """Updates a :class:`ModelEMA` after each step; must run before the hook that saves it."""

    def __init__(self, ema: ModelEMA) -> None:
        """Set the average.

        Args:
            ema: average to update; the checkpointer saves and loads it, not this hook.
        """
        self._ema = ema

    def before_train(self) -> None:
        """Start from the loaded weights, unless an average was loaded as well."""
        if self._ema.updates == 0:
            self._ema.reset(self.trainer.model)

    def after_step(self) -> None:
        """Average in the new weights."""
        self._ema.update(self.trainer.model)


class PeriodicCheckpointer(HookBase):
    """Saves ``model_<iteration>`` periodically and ``model_final`` at the end.

    Every process takes part, because the random states are gathered; the checkpointer writes on
    the main process only.
    """

    def __init__(
        self, checkpointer: Checkpointer, period: int, max_to_keep: int | None = None
    ) -> None:
        """Set the period and the number of kept checkpoints.

        Args:
            checkpointer: checkpointer with ``save(name, iteration=...)`` and ``save_dir``.
            period: number of iterations between checkpoints, >= 1.
            max_to_keep: number of periodic checkpoints of this run to keep on disk, >= 1; None
                keeps all.

        Raises:
            RunError: a number is out of range.
        """
        if period < 1 or (max_to_keep is not None and max_to_keep < 1):
            raise RunError(
                "train.checkpointer needs period >= 1 and max_to_keep >= 1 or null, got "
                f"{period} and {max_to_keep}"
            )

        self._checkpointer = checkpointer
        self._period, self._max_to_keep = period, max_to_keep
        self._saved: list[Path] = []

    def before_train(self) -> None:
        """Treat the checkpoints before a resumed run as its own, so that old ones are deleted."""
        files = sorted(Path(self._checkpointer.save_dir).glob("model_*.pth"))
        numbered = [(f, re.fullmatch(r"model_(\d{7,})", f.stem)) for f in files]

        start = self.trainer.start_iter
        self._saved = [f for f, match in numbered if match and int(match[1]) < start]

    def after_step(self) -> None:
        """Save if the period ends, and at the end of the training."""
        iteration = self.trainer.iter
        if (iteration + 1) % self._period == 0:
            self.save_now()
        if iteration + 1 >= self.trainer.max_iter:
            self._checkpointer.save("model_final", iteration=iteration)

    def save_now(self) -> None:
        """Save the current iteration, then delete the checkpoints that are too old."""
        iteration = self.trainer.iter
        path = Path(self._checkpointer.save_dir) / f"model_{iteration:07d}.pth"
        # The period may end in the same iteration in which a signal arrives.
        if path in self._saved:
            return

        self._checkpointer.save(path.stem, iteration=iteration)
        self._saved.append(path)
        # Old checkpoints go only after the new one is complete.
        while self._max_to_keep is not None and len(self._saved) > self._max_to_keep:
            old = self._saved.pop(0)
            if comm.is_main_process():
                old.unlink(missing_ok=True)


class StopOnSignal(HookBase):
    """Finishes the iteration, saves and exits on Ctrl-C or SIGTERM; a second one exits at once."""

    def __init__(self, checkpointer: PeriodicCheckpointer, period: int = 20) -> None:
        """Set the checkpoint hook and the period.

        Args:
            checkpointer: hook that saves the state.
            period: number of iterations between the points at which several processes agree to
                stop, >= 1; a single process checks after every iteration.
        """
        self._checkpointer, self._period = checkpointer, max(period, 1)
        self._signal, self._process = 0, os.getpid()
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Install the signal handlers, which only the main thread may do."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:

        # A handler may do little: it notes the signal, and ``after_step`` saves.
        if os.getpid() != self._process:  # a loader process, forked with this handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return  # Ctrl-C reaches it too, but the iteration still needs its data

        if self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def after_step(self) -> None:
        """Save and exit if a signal came.

        Raises:
            SystemExit: with the usual code 128 + signal.
        """

        # All processes must stop in the same iteration, or the others would wait for ever.
        if comm.get_world_size() > 1:
            if (self.trainer.iter + 1) % self._period:
                return
            number = max(comm.all_gather(self._signal))
        else:
            number = self._signal

        # After the last iteration the training ends anyway, and saves its final checkpoint.
        if number and self.trainer.iter + 1 < self.trainer.max_iter:
            self._checkpointer.save_now()
            _logger.warning(
                "stopped by signal %d after iteration %d; --resume continues from there",
                number,
                self.trainer.iter,
            )
            raise SystemExit(128 + number)

    def after_train(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
