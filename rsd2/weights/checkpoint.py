"""Checkpoints: safe loading that never starts silently from the wrong weights, atomic saving."""

from __future__ import annotations

import difflib
import logging
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from rsd2.io.files import replaced_file, write_atomically

from .errors import CheckpointError

if TYPE_CHECKING:
    from .inheritance import Inheritance

_logger = logging.getLogger(__name__)
_CONVERTER = "tools/convert_checkpoint.py --source ... --output ... --input"
_SHOWN_KEYS = 12


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may carry.

    Args:
        path: a ``.pth`` file: this project's checkpoint (``model`` and more), or a bare state
            dict of tensors.

    Returns:
        A dict with the state dict under ``"model"``; tensors on the CPU.

    Raises:
        CheckpointError: file missing, a pickle, damaged, of another layout, or holding objects
            that are not tensors or plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}{_neighbours(path)}")
    if path.suffix == ".pkl":
        raise CheckpointError(
            f"{path} is a pickle, which could run any code; convert it first: "
            f"python {_CONVERTER} {path}"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "unreadable"
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, or is no checkpoint ({reason}); "
            f"a third-party file is converted by python {_CONVERTER} {path}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is damaged or incomplete: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not a dict of tensors")
    if "model" not in checkpoint:
        checkpoint = {"model": checkpoint}
    state = checkpoint["model"]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(
            f"{path} is not in this project's layout (keys: {_listed(map(str, state))}); "
            f"convert it: python {_CONVERTER} {path}"
        )
    return checkpoint


def load_weights(
    model: nn.Module, path: str | Path, *, strict: bool = True, ema: bool = False
) -> dict[str, Any]:
    """Load a checkpoint's weights into a model.

    Args:
        model: gets the weights in place.
        path: of the checkpoint.
        strict: refuse any difference between the keys or shapes of the two; otherwise
            differences are listed in the log and skipped.
        ema: take the averaged weights, which the checkpoint then must have.

    Returns:
        The whole checkpoint.

    Raises:
        CheckpointError: see :func:`load_checkpoint` and :func:`load_state`; no averaged weights.
    """
    checkpoint = load_checkpoint(path)
    if ema and "ema" not in checkpoint:
        raise CheckpointError(f"{path} has no averaged weights (train.ema was off)")
    state = checkpoint["ema"]["model"] if ema else checkpoint["model"]
    load_state(model, state, strict=strict, source=str(path))
    return checkpoint


def load_state(
    model: nn.Module, state: Mapping[str, torch.Tensor], *, strict: bool, source: str
) -> None:
    """Load a state dict after comparing it with the model's.

    Args:
        model: gets the weights in place; unchanged if an error is raised.
        state: tensors by name; a common prefix ``module.`` is dropped.
        strict: refuse every difference; otherwise skip what differs, but never everything.
        source: named in messages.

    Raises:
        CheckpointError: with the missing, unexpected and mismatching keys.
    """
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    own = model.state_dict()
    state = _placed_backbone(state, own)
    shapes = {
        key: f"{key} {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    }
    # Counters of BatchNorm, which matter only for its cumulative averages.
    missing, unexpected = (
        [key for key in keys if not key.endswith("num_batches_tracked")]
        for keys in (own.keys() - state.keys(), state.keys() - own.keys())
    )
    fitting = {key: state[key] for key in own.keys() & state.keys() if key not in shapes}
    report = "; ".join(
        f"{len(keys)} {what}: {_listed(keys)}"
        for what, keys in (
            ("missing from the file", missing),
            ("unknown to the model", unexpected),
            ("of another shape", list(shapes.values())),
        )
        if keys
    )
    if report and strict:
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}: {report}. If that is meant, as when "
            "the classes change, use train.init_strict=false, or train.init_inherit for a "
            "pre-training"
        )
    if own and not fitting:
        raise CheckpointError(f"{source} is of another model: not one key fits; {report}")
    if report:
        _logger.warning("%s fits in %d of %d keys; %s", source, len(fitting), len(own), report)
    model.load_state_dict(fitting, strict=False)


def _placed_backbone(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Move a backbone into or out of a pyramid, which holds it as ``bottom_up``.

    So the weights of a classifier, or of a detector without a pyramid, fit one with a pyramid.
    """
    plain, inside = "backbone.", "backbone.bottom_up."
    given, wanted = (any(key.startswith(inside) for key in keys) for keys in (state, own))
    if given == wanted:
        return state
    old, new = (inside, plain) if given else (plain, inside)
    moved = {key: new + key[len(old) :] for key in state if key.startswith(old)}
    moved = {key: place for key, place in moved.items() if place in own}
    if moved:
        _logger.info("%d tensors of the backbone go from %s* to %s*", len(moved), old, new)
    return {moved.get(key, key): value for key, value in state.items()}


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with safe and strict loading and atomic saving."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        strict: bool = True,
        inheritance: Inheritance | None = None,
        **checkpointables: Any,
    ) -> None:
        """Prepare.

        Args:
            model: to save and load, wrapped or not.
            save_dir: local folder.
            strict: when weights alone are loaded; a resumed checkpoint always has to fit.
            inheritance: takes the place of ``strict`` when weights alone are loaded: what is
                inherited, dropped and missing is logged, and checked against what is meant.
            **checkpointables: objects with ``state_dict`` and ``load_state_dict``.
        """
        super().__init__(model, save_dir, **checkpointables)
        self._strict_weights = strict
        self._inheritance = inheritance
        self._source, self._strict, self._inherits = "", strict, False

    def save(self, name: str, **extra: Any) -> None:
        """Write ``<name>.pth``, complete or not at all, then point ``last_checkpoint`` to it.

        Every process has to call it, because states may be gathered; the main one writes.

        Args:
            name: without suffix.
            **extra: more values to store.

        Raises:
            CheckpointError: it cannot be written; earlier checkpoints are left as they were.
        """
        if not self.save_dir:
            return
        data = {"model": self.model.state_dict()}
        for key, obj in self.checkpointables.items():
            data[key] = obj.state_dict()
        data.update(extra)
        if not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)

        try:
            with replaced_file(path) as temporary, temporary.open("wb") as file:
                torch.save(data, file)
                # On disk before it takes its name: a power cut must not leave an empty checkpoint.
                file.flush()
                os.fsync(file.fileno())
            self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:
            last = self.get_checkpoint_file() if self.has_checkpoint() else "none"
            free = shutil.disk_usage(self.save_dir).free >> 20
            raise CheckpointError(
                f"cannot write {path} ({_first_cause(error)}; {free} MiB free). The last "
                f"complete checkpoint is {last}; make room, then continue with --resume"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in ``last_checkpoint``, atomically.

        Args:
            last_filename_basename: file name without folder.
        """
        write_atomically(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights and states.

        Args:
            path: of the checkpoint; empty loads nothing.
            checkpointables: names to load; None loads all, and then the weights must fit.

        Returns:
            What of the checkpoint was not used.

        Raises:
            CheckpointError: see :func:`load_checkpoint` and :func:`load_state`.
        """
        self._source = str(path)
        resumes = checkpointables is None
        self._strict = True if resumes else self._strict_weights
        self._inherits = self._inheritance is not None and not resumes
        if path and "://" not in str(path) and not Path(path).is_file():
            raise CheckpointError(f"no checkpoint {path}{_neighbours(Path(path))}")
        return super().load(path, checkpointables)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        if self._inherits:
            self._inheritance.load(self.model, checkpoint, self._source)
            checkpoint.pop("model")
        else:
            state = checkpoint.pop("model")
            load_state(self.model, state, strict=self._strict, source=self._source)


def _first_cause(error: BaseException) -> str:
    """Return the first error of a chain: torch follows a failed write by errors of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _neighbours(path: Path) -> str:
    """Return a hint: files of the folder that may have been meant."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".pth", ".pt", ".pkl"))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.3) or names[:5]
    return f"; there are: {', '.join(near)}" if near else f"; {path.parent} holds no checkpoint"


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f", ... ({len(names) - _SHOWN_KEYS} more)" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(names[:_SHOWN_KEYS]) + more
