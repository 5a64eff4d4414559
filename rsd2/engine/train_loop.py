"""The training loop: one iteration is one optimizer step."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .errors import RunError
from .hooks import unwrap
from .random_state import capture_random_state, restore_random_state
from .resuming import Settings, compare_settings, continue_optimizer, describe_changes

_logger = logging.getLogger(__name__)
_AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class NonFiniteError(FloatingPointError):
    """A loss or a gradient became infinite or NaN; the message names images and losses."""


class Trainer(SimpleTrainer):
    """Detectron2's trainer with mixed precision, clipping, accumulation and exact resuming.

    It works on CPU and GPU, in one process or in several.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Sequence[Mapping[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: str | None = None,
        max_grad_norm: float | None = None,
        norm_type: float = 2.0,
        accumulate: int = 1,
    ) -> None:
        """Set the options; nothing is loaded or computed yet.

        Args:
            model: model that maps a batch (list of dicts) to a loss or a dict of losses, whose
                sum is minimized; may be wrapped in DistributedDataParallel.
            data_loader: endless loader of batches. If it has ``state_dict`` and
                ``load_state_dict``, its position is saved and resumed.
            optimizer: optimizer of the model's parameters.
            amp_dtype: precision of the forward pass: None (full), ``"bfloat16"``, or
                ``"float16"`` (GPU only).
            max_grad_norm: upper bound of the gradient's norm, > 0; None does not clip.
            norm_type: exponent p of that norm.
            accumulate: number of batches per optimizer step, >= 1. The gradient is that of their
                mean loss.

        Raises:
            RunError: an option is out of range or does not fit the device.
        """
        super().__init__(model, data_loader, optimizer)

        self._device_type = next(model.parameters()).device.type
        if amp_dtype is not None and amp_dtype not in _AMP_DTYPES:
            raise RunError(f"train.amp.dtype must be float16 or bfloat16, got {amp_dtype!r}")
        if amp_dtype == "float16" and self._device_type != "cuda":
            raise RunError(
                f"train.amp.dtype=float16 needs a GPU, the model is on {self._device_type}; "
                "use train.amp.dtype=bfloat16 or train.amp.enabled=false"
            )

        if accumulate < 1 or (max_grad_norm is not None and max_grad_norm <= 0):
            raise RunError(
                "train.accumulate must be >= 1 and train.clip_grad.max_norm > 0, got "
                f"{accumulate} and {max_grad_norm}"
            )

        self._amp_dtype = None if amp_dtype is None else _AMP_DTYPES[amp_dtype]
        self._max_grad_norm = max_grad_norm
        self._norm_type = norm_type
        self._accumulate = accumulate

        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=amp_dtype == "float16")

        self._pending_random_state: dict[str, Any] | None = None
        self.settings: Settings = {}
        """Settings that checkpoints keep and that resuming compares; empty compares nothing."""
        self.allow_new_data = False
        """Whether to resume on other data than the checkpoint's."""

    def run_step(self) -> None:
        """Load the batches of one step, compute the gradient, update the weights.

        Raises:
            NonFiniteError: a loss is not finite, or without loss scaling a gradient.
            RuntimeError: the model is not in training mode, or the data loader ended.
        """
        if not self.model.training:
            raise RuntimeError("the model was left in eval mode; a hook has to restore train()")

        iterator = self._data_loader_iter
        if self._pending_random_state is not None:
            # A loader may draw a seed when it starts, so this has to come after it.
            restore_random_state(self._pending_random_state)
            self._pending_random_state = None

        self.optimizer.zero_grad()
        means: dict[str, torch.Tensor] = {}
        file_names: list[str] = []
        data_time = 0.0
        for index in range(self._accumulate):
            start = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                raise RuntimeError(
                    f"the training data loader ended at iteration {self.iter}; it has to be "
                    "endless (rsd2.data.samplers.build_train_loader is)"
                )

            data_time += time.perf_counter() - start
            file_names += [str(x.get("file_name", "?")) for x in batch if isinstance(x, Mapping)]
            # Divided here, because the sum of the shares is the mean over all batches.
            for name, loss in self._backward(batch, index, file_names).items():
                means[name] = means.get(name, 0.0) + loss.detach() / self._accumulate

        self._update_weights(file_names)
        self._write_metrics(means, data_time)

    def _backward(
        self, batch: Sequence[Mapping[str, Any]], index: int, file_names: list[str]
    ) -> dict[str, torch.Tensor]:
        """Add one batch's share to the gradient and return its losses."""
        is_last = index == self._accumulate - 1
        distributed = isinstance(self.model, DistributedDataParallel)
        with contextlib.ExitStack() as stack:
            # Gradients are exchanged once a step, with the last batch.
            if distributed and not is_last:
                stack.enter_context(self.model.no_sync())
            with torch.autocast(
                self._device_type, dtype=self._amp_dtype, enabled=self._amp_dtype is not None
            ):
                # The loss is a part of the mixed-precision region, as torch recommends.
                losses = self.model(batch)
                if isinstance(losses, torch.Tensor):
                    losses = {"total_loss": losses}
                if not losses:
                    raise RuntimeError(f"{type(self.model).__name__} returned no loss to minimize")
                total = sum(losses.values())

            # Checked before the backward pass, while the images of the batch are known.
            if not torch.isfinite(total):
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                bad = {name: value for name, value in values.items() if not math.isfinite(value)}
                raise NonFiniteError(
                    f"iteration {self.iter}: the loss is {float(total.detach())}; not finite: "
                    f"{bad or 'the sum only'}; images: {', '.join(file_names)}. Look at their "
                    "labels, lower optimizer.lr, enable train.clip_grad or disable train.amp"
                )

            self.grad_scaler.scale(total / self._accumulate).backward()

        return losses

    def _update_weights(self, file_names: list[str]) -> None:
        # Gradients must have their true size before they are measured and clipped.
        self.grad_scaler.unscale_(self.optimizer)

        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = get_total_norm(grads, self._norm_type)
        finite = bool(torch.isfinite(norm))

        # With loss scaling an overflow is ordinary: the scaler skips the step and scales less.
        if not finite and not self.grad_scaler.is_enabled():
            names = [
                name
                for name, p in self.model.named_parameters()
                if p.grad is not None and not torch.isfinite(p.grad).all()
            ]
            raise NonFiniteError(
                f"iteration {self.iter}: the gradient's norm is {float(norm)} although the loss "
                f"is finite; parameters: {', '.join(names[:10])} ({len(names)} in all); images: "
                f"{', '.join(file_names)}"
            )

        if finite and self._max_grad_norm is not None:
            clip_grads_with_norm_(parameters, self._max_grad_norm, norm)
        self.after_backward()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

        if finite:
            self.storage.put_scalar("grad_norm", float(norm))
        if self.grad_scaler.is_enabled():
            self.storage.put_scalar("grad_scale", self.grad_scaler.get_scale())

    def after_train(self) -> None:
        """End the loader's processes, then run the hooks."""
        # Left to the garbage collector, which finds the loader in a reference cycle and breaks
        # its queues first, each loader process would only end after a timeout of seconds.
        self._data_loader_iter_obj = None
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        """Collect what an exact continuation needs; every process has to call it.

        Returns:
            Iteration, hooks, optimizer with the names of its parameters, loss scale, position in
            the data, the settings of the run, and on the main process the random state of every
            process.
        """
        state = super().state_dict()
        state["parameter_names"] = self._parameter_names()
        state["settings"] = dict(self.settings)
        state["grad_scaler"] = self.grad_scaler.state_dict()
        state["random_state"] = comm.gather(capture_random_state())
        if hasattr(self.data_loader, "state_dict"):
            state["data_loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` with the rates and options of this run.

        It logs changed settings, and warns of parts that cannot be continued exactly.

        Args:
            state_dict: state of a trainer with the same model and class of optimizer.

        Raises:
            RunError: a setting differs that a resumed run cannot change.
        """
        before = state_dict.get("settings")
        if before and self.settings:
            changes = compare_settings(before, self.settings, allow_new_data=self.allow_new_data)
            if changes:
                _logger.warning(describe_changes(changes))
            # A run without a seed continues with that of the checkpoint.
            if self.settings.get("train.seed") is None:
                self.settings["train.seed"] = before.get("train.seed")

        optimizer = continue_optimizer(
            self.optimizer,
            self._parameter_names(),
            state_dict["optimizer"],
            state_dict.get("parameter_names"),
        )
        # With this run's rates: torch's own loading would take those of the checkpoint.
        super().load_state_dict({**state_dict, "optimizer": optimizer})

        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])

        self._continue_data(state_dict)

    def _continue_data(self, state_dict: dict[str, Any]) -> None:
        """Continue random numbers and data where the checkpoint left them, as far as possible."""
        states = state_dict.get("random_state", [])
        # Each process has its own random numbers, so their number must be the same.
        if len(states) == comm.get_world_size():
            self._pending_random_state = states[comm.get_rank()]
        else:
            _logger.warning(
                "the checkpoint has the random state of %d processes, this run has %d: "
                "it continues, but with other random numbers",
                len(states),
                comm.get_world_size(),
            )

        if hasattr(self.data_loader, "load_state_dict") and "data_loader" in state_dict:
            self.data_loader.load_state_dict(state_dict["data_loader"])
        else:
            _logger.warning("the data loader starts over: it or the checkpoint has no position")

    def _parameter_names(self) -> list[str]:
        """Return the names of the optimizer's parameters, in the order of its state."""
        names = {id(p): name for name, p in unwrap(self.model).named_parameters()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return [names.get(id(p), f"#{place}") for place, p in enumerate(parameters)]
