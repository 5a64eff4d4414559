"""Checkpoints: safe loading that never silently accepts wrong weights, and atomic saving."""

from __future__ import annotations

import difflib
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from rsd2.io.files import replaced_file, write_atomically

from .errors import CheckpointError
from .tensor_files import as_tensor, read_weight_file, without_wrappers

if TYPE_CHECKING:
    from .inheritance import Inheritance

_logger = logging.getLogger(__name__)
_CONVERTER = "tools/convert_checkpoint.py --source ... --output ... --input"
_SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors")
_SHOWN_KEYS = 12


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may contain.

    Args:
        path: path of a ``.pth`` or ``.safetensors`` file: this project's checkpoint (``model`` and
            more), or a bare state dict of tensors.

    Returns:
        A dict with the state dict under ``"model"``; tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, a pickle, damaged, has another layout, or holds
            objects that are not tensors or plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file{_neighbours(path / 'model.pth')}")
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}{_neighbours(path)}")
    if path.suffix == ".pkl":
        raise CheckpointError(
            f"{path} is a pickle, whose tensors have other names than this project's; convert it "
            f"first: python {_CONVERTER} {path}"
        )

    checkpoint = read_weight_file(path)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not a dict of tensors")

    # A bare state dict, as torch.save(model.state_dict(), ...) writes it.
    if "model" not in checkpoint:
        checkpoint = {"model": checkpoint}

    state = checkpoint["model"]
    if isinstance(state, Mapping):
        state = {key: as_tensor(value) for key, value in state.items()}
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        keys = _listed(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(
            f"{path} is not in this project's layout (keys: {keys}). If another program wrote it, "
            f"convert it: python {_CONVERTER} {path}; if its tensors have the names of your model, "
            "save them anew as torch.save({'model': tensors}, ...)"
        )
    return {**checkpoint, "model": state}


def load_weights(
    model: nn.Module, path: str | Path, *, strict: bool = True, ema: bool = False
) -> dict[str, Any]:
    """Load a checkpoint's weights into a model.

    Args:
        model: model to fill in place.
        path: path of the checkpoint.
        strict: whether to refuse any difference between the keys or shapes of the two; otherwise
            differences are listed in the log and skipped.
        ema: whether to load the averaged weights, which the checkpoint then must have.

    Returns:
        The whole checkpoint.

    Raises:
        CheckpointError: see :func:`load_checkpoint` and :func:`load_state`; or there are no
            averaged weights.
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

    It logs a warning about values that are NaN or infinite.

    Args:
        model: model to fill in place; unchanged if an error is raised.
        state: tensors by name; prefixes of wrappers are dropped from the names.
        strict: whether to refuse every difference; otherwise tensors that differ are skipped, but
            not all.
        source: name of the file, for messages.

    Raises:
        CheckpointError: the keys or shapes differ; the message lists the keys.
    """
    own = model.state_dict()
    state = _placed_backbone(without_wrappers(state, own), own)
    shapes = {
        key: f"{key} {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    }

    # BatchNorm's counters are ignored: they matter only for its cumulative averages.
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

    # Not one common key means a wrong file, which even a tolerant load must refuse.
    if own and not fitting:
        raise CheckpointError(f"{source} is of another model: not one key fits; {report}")
    if report:
        _logger.warning("%s fits in %d of %d keys; %s", source, len(fitting), len(own), report)

    model.load_state_dict(fitting, strict=False)
    if damage := describe_damage(model):
        _logger.warning("%s %s", source, damage)


def describe_damage(model: nn.Module) -> str | None:
    """Name the weights of a model that are NaN or infinite.

    Args:
        model: model whose weights were loaded. Buffers may be infinite, like masks of attention.

    Returns:
        The rest of a sentence about the file of the weights, or None if nothing is wrong.
    """
    names = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    names += [name for name, value in model.named_buffers() if torch.isnan(value).any()]
    if not names:
        return None
    total = len(model.state_dict())
    return (
        f"holds NaN or infinite numbers in {len(names)} of {total} tensors ({_listed(names)}): are "
        "these the right weights? A training that diverged, or a damaged file, looks like this"
    )


def _placed_backbone(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Rename a backbone into or out of a pyramid, which holds it as ``bottom_up``.

    The weights of a classifier, or of a detector without a pyramid, then fit one with a pyramid.
    """
    plain, inside = "backbone.", "backbone.bottom_up."
    given, wanted = (any(key.startswith(inside) for key in keys) for keys in (state, own))
    if given == wanted:
        return state

    old, new = (inside, plain) if given else (plain, inside)
    moved = {key: new + key[len(old) :] for key in state if key.startswith(old)}
    # Keys without a place in the model keep their names, so that they are reported.
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
        """Set what is saved and how it is loaded.

        Args:
            model: model to save and load, wrapped or not.
            save_dir: path of a local folder; empty saves nothing.
            strict: whether to refuse every difference when only weights are loaded; a resumed
                checkpoint always has to fit.
            inheritance: rules that replace ``strict`` when only weights are loaded: it logs what is
                inherited, dropped and missing, and checks that against what is expected.
            **checkpointables: objects with ``state_dict`` and ``load_state_dict``.
        """
        super().__init__(model, save_dir, **checkpointables)
        self._strict_weights = strict
        self._inheritance = inheritance
        self._source, self._strict = "", strict
        self._inherits = self._resumes = False

    def save(self, name: str, **extra: Any) -> None:
        """Write ``<name>.pth``, complete or not at all, then point ``last_checkpoint`` to it.

        Every process has to call it, because states may be gathered; the main process writes.

        Args:
            name: file name without suffix.
            **extra: further values to store.

        Raises:
            CheckpointError: the file cannot be written; earlier checkpoints are left as they were.
        """
        if not self.save_dir:
            return
        # Collected on every process, also on those that write nothing: states are gathered.
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

    def load(self, path: str | Path, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights and states.

        Args:
            path: path of the checkpoint; empty loads nothing.
            checkpointables: names of the states to load; None loads all, and then the weights must
                fit.

        Returns:
            The unused rest of the checkpoint.

        Raises:
            CheckpointError: see :func:`load_checkpoint` and :func:`load_state`.
        """
        self._source = str(path)
        self._resumes = checkpointables is None
        self._strict = True if self._resumes else self._strict_weights
        self._inherits = self._inheritance is not None and not self._resumes
        if path and "://" not in str(path) and not Path(path).is_file():
            raise CheckpointError(f"no checkpoint {path}{_neighbours(Path(path))}")
        return super().load(str(path), checkpointables)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        if self._inherits and self._inheritance is not None:
            self._inheritance.load(self.model, checkpoint, self._source)
            checkpoint.pop("model")
        else:
            self._load_whole(checkpoint.pop("model"))

        # A training on such weights would only fail at its first loss.
        if damage := describe_damage(self.model):
            raise CheckpointError(f"{self._source} {damage}; take an earlier checkpoint")

    def _load_whole(self, state: Mapping[str, torch.Tensor]) -> None:
        try:
            load_state(self.model, state, strict=self._strict, source=self._source)
        # The remedies of a first load do not help somebody who resumes.
        except CheckpointError as error:
            if not self._resumes:
                raise
            raise CheckpointError(
                f"{str(error).partition(' If that is meant')[0]} --resume continues the same "
                "model: give the options that it began with, or begin another training from these "
                "weights with train.init_checkpoint=... and another train.output_dir"
            ) from error


def _first_cause(error: BaseException) -> str:
    """Return the text of the first error of a chain: torch adds its own error to a failed write."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _neighbours(path: Path) -> str:
    """Return a hint that lists similar files of the folder."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix in _SUFFIXES)
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.3) or names[:5]
    return f"; there are: {', '.join(near)}" if near else f"; {path.parent} holds no checkpoint"


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f", ... ({len(names) - _SHOWN_KEYS} more)" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(names[:_SHOWN_KEYS]) + more
