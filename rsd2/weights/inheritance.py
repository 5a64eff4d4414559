"""Inheritance of a detector from a pre-training, which accounts for every weight.

A pre-training has modules that a detector lacks, and other classes than the detector. Loading
its checkpoint with ``init_strict=false`` would accept these differences, but also a misspelt prefix
or half an encoder. An `Inheritance` lists what may differ; any other difference is an error.

Shapes: K classes of the pre-training.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .errors import CheckpointError
from .tensor_files import without_wrappers

_logger = logging.getLogger(__name__)
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)")
_HEAD = re.compile(r"heads\.(\w+_heads)\.(\d+)\.(.+)")
_SHOWN = 12


@dataclass
class InheritanceReport:
    """Outcome for every weight of the file and of the model.

    Attributes:
        inherited: key of the model -> key of the file.
        dropped: key of the file -> why the model does not take it.
        anew: key of the model -> why it keeps its initial value.
        errors: sentences about weights that should have been inherited and were not.
    """

    inherited: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    anew: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"inherited {len(self.inherited)} tensors: {_grouped(self.inherited)}"]
        for title, reasons in (("dropped", self.dropped), ("starts anew", self.anew)):
            for reason in dict.fromkeys(reasons.values()):
                keys = [key for key, why in reasons.items() if why == reason]
                lines.append(f"{title} {len(keys)} ({reason}): {_grouped(keys)}")
        return "\n  ".join(lines)


@dataclass(frozen=True)
class Inheritance:
    """Rules for what a detector inherits from the checkpoint of a pre-training.

    Parts are named by prefixes of their parameters' names, like ``"backbone"``.

    Attributes:
        pretraining_only: parts of the file that the detector does not need.
        starts_anew: parts of the detector that are never inherited, whatever their shape, because
            the pre-training has other classes.
        parts: only parts to inherit, for a checkpoint of a backbone alone; None inherits all.
        averaged: whether to take the averaged weights, which the checkpoint then must have.
        encoder_layers: list that gives each encoder layer of the model a layer of the file, or
            None to keep its initial values; ``"repeat"`` for the file's layers and then copies of
            its last one, ``"random"`` for the file's layers and then initial values. None requires
            equal numbers.
        decoder_layers: the same list for the decoder and the heads of its layers.
        keep_objectness: whether the class head that scores the encoder's tokens inherits its first
            rows although the classes are others: there it knows only "any object". The official
            code does not.
        official_head_positions: whether to give head i of the file to head i of the model, as the
            official code does: with two decoder layers in the file and six in the model, the head
            of the encoder's proposals then becomes that of the third decoder layer. Otherwise the
            encoder's heads of both sides belong together.
        file_part: part of the file that fills the model's ``model_part``, like
            ``target_encoder``; empty if both use the same names.
        model_part: part of the model that it fills, like ``backbone.net``.
        initial_if_absent: last names of parameters, like ``rel_pos_h``, that keep their initial
            values if the file has none for them, because the pre-training has no such parameters.
        bands: for an image of other bands than the file's, the band of the file, from 0, whose
            weights each band of the model takes in the first convolution; None for the mean of the
            file's bands. ``[0, 1, 2, None]`` suits red, green, blue and near infrared. See
            `adapt_bands`. None requires equal bands.
    """

    pretraining_only: Sequence[str] = ()
    starts_anew: Sequence[str] = ("heads.class_heads", "denoising.label_embedding")
    parts: Sequence[str] | None = None
    averaged: bool = False
    encoder_layers: Sequence[int | None] | str | None = None
    decoder_layers: Sequence[int | None] | str | None = None
    keep_objectness: bool = False
    official_head_positions: bool = False
    file_part: str = ""
    model_part: str = ""
    initial_if_absent: Sequence[str] = ()
    bands: Sequence[int | None] | None = None

    def load(
        self, model: nn.Module, checkpoint: Mapping[str, Any], source: str
    ) -> InheritanceReport:
        """Fill a model and log the report.

        Args:
            model: model to fill in place; unchanged if an error is raised.
            checkpoint: result of ``load_checkpoint``.
            source: name of the checkpoint's file, for messages.

        Returns:
            The report.

        Raises:
            CheckpointError: the file lacks the requested averaged weights, or a weight that
                should be inherited is missing, unknown or of another shape; the message lists the
                first ones.
        """
        if self.averaged and "ema" not in checkpoint:
            raise CheckpointError(
                f"{source} has no averaged weights (train.ema was off); set "
                "train.init_inherit.averaged=false"
            )

        state = checkpoint["ema"]["model"] if self.averaged else checkpoint["model"]
        own = model.state_dict()
        values, report = self.plan(own, without_wrappers(state, own))

        if report.errors:
            more = len(report.errors) - _SHOWN
            shown = [*report.errors[:_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
            raise CheckpointError(
                f"{source} does not give {type(model).__name__} what it should inherit:\n  "
                + "\n  ".join([*shown, str(report)])
            )

        # Nothing is loaded before the whole plan is free of errors.
        _logger.info("%s:\n  %s", source, report)
        model.load_state_dict(values, strict=False)
        return report

    def plan(
        self, model: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], InheritanceReport]:
        """Decide for every weight whether it is inherited.

        Args:
            model: state dict of the detector.
            state: state dict of the pre-training.

        Returns:
            The values to load, by the detector's keys, and the report.
        """
        report, values = InheritanceReport(), {}
        names = self._model_names(state)
        state = {name: state[key] for name, key in names.items()}

        layers = self._layers(model, state, report)
        heads = _num_heads(model), _num_heads(state)

        for key, own in model.items():
            # Older files lack these counters, which no inherited layer uses.
            if key.endswith("num_batches_tracked") and key not in state:
                continue
            if not self._wanted(key):
                report.anew[key] = "not asked for"
                continue

            origin = self._origin(key, layers, heads)
            if _starts(key, self.starts_anew):
                rows = self._objectness_rows(key, origin, own, state, heads[0])
                if origin is None or rows is None:
                    report.anew[key] = "the classes are others"
                    continue
                values[key] = rows
            elif origin is None:
                report.anew[key] = "no layer of the file is meant for it"
                continue
            elif origin not in state:
                if key.rpartition(".")[2] in self.initial_if_absent:
                    report.anew[key] = "the file has none"
                    continue
                wanted = self._file_name(origin)
                report.errors.append(f"missing from the file: {wanted}, needed by {key}")
                continue
            elif self.bands is not None and _has_other_bands(state[origin], own):
                try:
                    values[key] = adapt_bands(state[origin], self.bands)
                except ValueError as error:
                    report.errors.append(f"{error}: {names[origin]}, needed by {key}")
                    continue
                if values[key].shape != own.shape:
                    report.errors.append(
                        f"train.init_inherit.bands has {len(self.bands)} entries, but the image of "
                        f"the model has {own.shape[1]} bands: {key}"
                    )
                    continue
            elif state[origin].shape != own.shape:
                shapes = f"{tuple(state[origin].shape)} in the file, {tuple(own.shape)} in {key}"
                report.errors.append(f"of another shape: {names[origin]} {shapes}")
                continue
            else:
                values[key] = state[origin]

            # Only keys that passed every check above arrive here.
            report.inherited[key] = names[origin]

        self._account(model, names, state, report)
        return values, report

    def _model_names(self, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Map each weight's name in the model to its key in the file."""
        if not self.file_part:
            return {key: key for key in state}

        names, part = {}, self.file_part.rstrip(".") + "."
        for key in state:
            moved = key.startswith(part)
            name = f"{self.model_part.rstrip('.')}.{key.removeprefix(part)}" if moved else key
            # The part is replaced by another one of the file, so its own name is taken.
            if not moved and self.model_part and _starts(key, [self.model_part]):
                name = f"(file) {key}"  # belongs to a part that another one replaces
            names[name] = key
        return names

    def _file_name(self, name: str) -> str:
        """Return the key in the file of a weight that has this name in the model."""
        part = self.model_part.rstrip(".") + "."
        if not self.file_part or not name.startswith(part):
            return name
        return f"{self.file_part.rstrip('.')}.{name.removeprefix(part)}"

    def _account(
        self,
        model: Mapping[str, torch.Tensor],
        names: Mapping[str, str],
        state: Mapping[str, torch.Tensor],
        report: InheritanceReport,
    ) -> None:
        """Report why weights of the file are not inherited."""
        used = set(report.inherited.values())
        # Every weight of the file needs a reason, so that a misspelt prefix is noticed.
        for name, key in names.items():
            if key in used or key.endswith("num_batches_tracked"):
                continue
            if _starts(key, self.pretraining_only):
                report.dropped[key] = "of the pre-training only"
            elif _starts(name, self.starts_anew):
                ours = f", the model has {len(model[name])}" if name in model else ""
                report.dropped[key] = f"of {len(state[name])} classes{ours}"
            elif not self._wanted(name):
                report.dropped[key] = "not asked for"
            elif _LAYER.match(name) or _HEAD.match(name):
                report.dropped[key] = "no layer of the model is meant to get it"
            elif name not in model:
                report.errors.append(
                    f"unknown to the model: {key}; if the pre-training alone needs it, add its "
                    "part to train.init_inherit.pretraining_only"
                )

    def _wanted(self, key: str) -> bool:
        return self.parts is None or _starts(key, self.parts)

    def _layers(
        self,
        model: Mapping[str, torch.Tensor],
        state: Mapping[str, torch.Tensor],
        report: InheritanceReport,
    ) -> dict[str, list[int | None]]:
        """Choose the layer of the file for each layer of the model's encoder and decoder."""
        result = {}

        for name, choice in (("encoder", self.encoder_layers), ("decoder", self.decoder_layers)):
            ours, theirs = _depth(model, name), _depth(state, name)
            if choice is None:
                if ours != theirs and self._wanted(f"{name}.layers"):
                    report.errors.append(
                        f"the file has {theirs} {name} layers, the model {ours}; say what its "
                        f"layers get: train.init_inherit.{name}_layers=repeat, random, or a list"
                    )
                choice = list(range(ours))
            elif isinstance(choice, str):
                if choice not in ("repeat", "random"):
                    raise CheckpointError(
                        f"train.init_inherit.{name}_layers is 'repeat', 'random' or a list of "
                        f"layers, got {choice!r}"
                    )
                last = theirs - 1 if choice == "repeat" else None
                choice = [i if i < theirs else last for i in range(ours)]

            wrong = [i for i in choice if i is not None and not 0 <= i < theirs]
            if self._wanted(f"{name}.layers") and (len(choice) != ours or (theirs and wrong)):
                report.errors.append(
                    f"train.init_inherit.{name}_layers={list(choice)} has to name one of the "
                    f"file's {theirs} layers, or null, for each of the model's {ours}"
                )
            result[name] = [*choice, *([None] * (ours - len(choice)))]
        return result

    def _origin(
        self, key: str, layers: Mapping[str, list[int | None]], heads: tuple[int, int]
    ) -> str | None:
        """Choose the key of the file for a key of the model; None keeps its initial value."""
        if match := _LAYER.fullmatch(key):
            source = layers[match[1]][int(match[2])]
            return None if source is None else f"{match[1]}.layers.{source}.{match[3]}"
        # Heads of the decoder follow its layers; the last head scores the encoder's proposals.
        match = _HEAD.fullmatch(key)

        if not match or not heads[1]:
            return key

        index = int(match[2])
        if self.official_head_positions:
            source = index if index < heads[1] else None
        elif index == heads[0] - 1:
            source = heads[1] - 1
        else:
            source = layers["decoder"][index]
        return None if source is None else f"heads.{match[1]}.{source}.{match[3]}"

    def _objectness_rows(
        self,
        key: str,
        origin: str | None,
        own: torch.Tensor,
        state: Mapping[str, torch.Tensor],
        heads: int,
    ) -> torch.Tensor | None:
        """Copy the file's first class rows to the encoder's head, for ``keep_objectness``."""
        match = _HEAD.fullmatch(key)
        of_encoder = match and match[1] == "class_heads" and int(match[2]) == heads - 1
        if not (self.keep_objectness and of_encoder):
            return None
        if origin is None or origin not in state:
            return None

        # Rows that the file lacks keep their initial values.
        rows = own.clone()
        count = min(len(own), len(state[origin]))
        rows[:count] = state[origin][:count]
        return rows


def adapt_bands(weight: torch.Tensor, bands: Sequence[int | None]) -> torch.Tensor:
    """Turn the weights of a first convolution into those for an image of other bands.

    Each band takes the weights of a band of the file, or their mean. All are scaled by C / N, so
    that an image of more bands does not give stronger features.

    Args:
        weight: (D, C, h, w) weights for C bands.
        bands: N entries: index of a band in [0, C), or None for the mean of the C bands.

    Returns:
        (D, N, h, w) weights for N bands.

    Raises:
        ValueError: there is no such band.
    """
    number = weight.shape[1]
    wrong = [band for band in bands if band is not None and not 0 <= band < number]
    if wrong or not bands:
        raise ValueError(f"bands {list(bands)} has to name some of 0 to {number - 1}, or null")

    mean = weight.mean(dim=1)
    taken = [mean if band is None else weight[:, band] for band in bands]
    return torch.stack(taken, dim=1) * (number / len(bands))


def _has_other_bands(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Tell whether two convolutions differ in the bands of an image alone."""
    return (
        theirs.ndim == ours.ndim == 4
        and theirs.shape[1] == 3 != ours.shape[1]
        and theirs.shape[:1] + theirs.shape[2:] == ours.shape[:1] + ours.shape[2:]
    )


def _starts(key: str, parts: Sequence[str]) -> bool:
    return any(key == part or key.startswith(part.rstrip(".") + ".") for part in parts)


def _depth(state: Mapping[str, torch.Tensor], name: str) -> int:
    found = [int(m[2]) for key in state if (m := _LAYER.fullmatch(key)) and m[1] == name]
    return max(found, default=-1) + 1


def _num_heads(state: Mapping[str, torch.Tensor]) -> int:
    found = [int(m[2]) for key in state if (m := _HEAD.fullmatch(key))]
    return max(found, default=-1) + 1


def _grouped(keys: Sequence[str] | Mapping[str, str]) -> str:
    """Count keys by the module that they belong to."""
    counts = Counter(re.sub(r"\.\d+(\.|$).*", "", key.rpartition(".")[0] or key) for key in keys)
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "none"
