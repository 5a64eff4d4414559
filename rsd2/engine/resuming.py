"""Resuming: a user may change what the config decides; the rest has to be as it was.

A checkpoint holds more than weights: rates and weight decay in the groups of the optimizer, the
seed, the position in the data. These must not silently override what the config says. So each
checkpoint records the settings of its run, and a resumed run is compared with them before its
first step.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from detectron2.data import DatasetFromList

from .errors import RunError

_logger = logging.getLogger(__name__)

Settings = dict[str, str | int | float | bool | None]
"""Dotted key of the config -> value; ``data.*`` describes the images."""

_ANEW = (
    "begin another training from these weights instead: leave --resume out, give "
    "train.init_checkpoint=... and another train.output_dir"
)
_REFUSED = {
    "model._target_": "the weights are of another model",
    "optimizer._target_": "the moments that one optimizer gathered mean nothing to another",
    "optimizer.amsgrad": "the optimizer would lack the maxima of its moments",
    "optimizer.centered": "the optimizer would lack the mean of its gradients",
    "data.classes": "the outputs of the model would mean other classes",
}
# These change the speed of a training, not its result.
_UNIMPORTANT = ("dataloader.train.num_workers", "dataloader.train.mapper.decoded_cache_dir")
# These follow from others and from the data, and earlier checkpoints lack them.
_FACTS = ("data.least_extent", "data.greatest_extent", "data.least_scale", "data.greatest_scale")
# These follow from another setting, which is the one to report.
_DERIVED = {"lr_multiplier.max_iter": "train.max_iter", "optimizer.params.base_lr": "optimizer.lr"}
_RATES = ("lr", "weight_decay", "betas", "momentum")
_MAX_IDS, _MAX_SHOWN = 1000, 12


def settings_of(leaves: Iterable[tuple[str, Any]]) -> Settings:
    """Turn the leaves of a config into plain values, which a checkpoint can hold.

    Args:
        leaves: (dotted key, value), interpolations resolved.

    Returns:
        The settings. A function or class is kept by its own name only, because modules move.
    """
    return {key: _plain(key, value) for key, value in leaves if key not in _UNIMPORTANT}


def _plain(key: str, value: Any) -> str | int | float | bool | None:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, str) and key.endswith("_target_"):
        return value.rpartition(".")[2]
    if key == "train.init_checkpoint" and value:
        # The run may have moved, or name the file in another way.
        return "/".join(Path(value).resolve().parts[-2:])
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return type(value).__name__


def describe_data(loader: Any, class_names: Sequence[str] | None) -> Settings:
    """Describe training data, so that a resumed run notices other data in any folder.

    Args:
        loader: loader of ``build_train_loader``; other loaders are not described.
        class_names: class names of the data, or None.

    Returns:
        Number of images, a digest of (some of) their ids, and the classes, as settings.
    """
    found: Settings = {}
    if class_names:
        found["data.classes"] = ", ".join(class_names)
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, DatasetFromList) or not len(dataset):
        return found

    # Up to a thousand evenly spaced images: each one has to be unpickled.
    step = max(1, len(dataset) // _MAX_IDS)

    digest = hashlib.sha256()
    for index in range(0, len(dataset), step):
        record = dataset[index]
        if isinstance(record, Mapping):
            name = PurePath(str(record.get("file_name", ""))).name
            digest.update(f"{record.get('image_id')}:{name}\n".encode())
    return {**found, "data.num_images": len(dataset), "data.digest": digest.hexdigest()[:16]}


def compare_settings(before: Settings, now: Settings, *, allow_new_data: bool = False) -> list[str]:
    """Compare the settings of a resumed run with those of its checkpoint.

    Args:
        before: settings of the checkpoint.
        now: settings of this run. A ``train.seed`` of None takes that of the checkpoint.
        allow_new_data: whether to accept other training data.

    Returns:
        Sentences about the changes that the run follows.

    Raises:
        RunError: a change that a resumed run cannot follow; the message lists all, with reasons.
    """
    changed = {
        key: f"{key}={_shown(now.get(key))} (was {_shown(before.get(key))})"
        for key in sorted({*before, *now} - set(_FACTS))
        if before.get(key) != now.get(key)
    }

    if "data.digest" in changed:
        # A digest tells a user nothing.
        changed["data.digest"] = "other images"

    # The same change must not be reported twice under two names.
    for key, origin in _DERIVED.items():
        if origin in changed:
            changed.pop(key, None)

    if now.get("train.seed") is None:
        changed.pop("train.seed", None)
    if "train.max_iter" not in changed:
        changed.pop("train.epochs", None)  # the same length, said in another way

    refusals = [
        f"{changed.pop(key)}: {reason}; {_ANEW}"
        for key, reason in _REFUSED.items()
        if key in changed
    ]
    refusals += _refused_train_options(changed, before, now)

    data = [key for key in changed if _is_of_data(key, before, now)]
    if data and not allow_new_data:
        refusals.append(
            f"the training data are others: {_listed([changed[key] for key in data])}; name those "
            "that the run began with, or continue on the new ones with train.allow_new_data=true"
        )

    if refusals:
        raise RunError("--resume cannot change this:\n  " + "\n  ".join(refusals))
    return list(changed.values())


def _refused_train_options(changed: dict[str, str], before: Settings, now: Settings) -> list[str]:
    """Remove the options that a resumed run cannot change, and return the reasons."""
    refusals = []
    for key in ("train.seed", "dataloader.train.seed"):
        if key in changed:
            refusals.append(
                f"{changed.pop(key)}: the order of the data and the random numbers are continued; "
                f"give {key}={_shown(before.get(key))}"
            )

    # Without a value the option asks for nothing, so its removal is fine.
    start = changed.pop("train.init_checkpoint", None)
    if start and now.get("train.init_checkpoint"):
        refusals.append(
            f"{start}: the last checkpoint is continued, not this one; leave it out, or {_ANEW}"
        )

    # With epochs, these sizes decide the length of the run and the place within an epoch.
    sizes = ("dataloader.train.total_batch_size", "train.accumulate", "data.num_images")
    other = [changed[key] for key in sizes if key in changed]
    if now.get("train.epochs") is not None and other:
        refusals.append(
            f"{', '.join(other)} with train.epochs={now['train.epochs']}: the iterations that are "
            "done covered another share of an epoch; give train.epochs=null train.max_iter=..."
        )
    return refusals


def _is_of_data(key: str, before: Settings, now: Settings) -> bool:
    if key.startswith("data."):
        return True
    if not key.startswith("dataloader.train.dataset.") or key.endswith("_target_"):
        return False
    # A folder may have moved; the digest tells whether the images are the same.
    values = before.get(key), now.get(key)
    return not all(isinstance(value, str) and "/" in value for value in values)


def continue_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    saved: Mapping[str, Any],
    saved_names: Sequence[str] | None,
) -> dict[str, Any]:
    """Combine the state of a saved optimizer with the rates of a new one.

    Torch takes the groups of the saved optimizer as they are, and would ignore the learning rates,
    weight decay and betas of the config. It also takes parameters by their place in the groups,
    which another choice of multipliers changes.

    Args:
        optimizer: new optimizer that the config builds.
        names: names of its parameters, in the order of its groups.
        saved: ``state_dict`` of the saved optimizer.
        saved_names: names of the saved parameters; None in checkpoints of earlier versions,
            whose groups then have to be those of ``optimizer``.

    Returns:
        A state for ``optimizer.load_state_dict``: moments and counts of ``saved`` by parameter
        name, everything else of ``optimizer``.

    Raises:
        RunError: the two are of different classes, or their parameters cannot be matched.
    """
    own, old_groups = optimizer.state_dict(), saved["param_groups"]
    _check_kind(own["param_groups"], old_groups)

    old_places = [place for group in old_groups for place in group["params"]]
    if saved_names is None:
        saved_names = _assumed_names(optimizer, names, saved)
        _report_rates(own["param_groups"], old_groups)

    old_place = dict(zip(saved_names, old_places, strict=True))
    state = {}
    for place, name in enumerate(names):
        if name in old_place and old_place[name] in saved["state"]:
            state[place] = saved["state"][old_place[name]]

    for what, others in (
        ("begin to be trained, without moments", [n for n in names if n not in old_place]),
        ("are trained no longer", [n for n in saved_names if n not in set(names)]),
    ):
        if others:
            _logger.warning("%d parameters %s: %s", len(others), what, _listed(others))

    # The schedule multiplies this rate; it is written into the groups at the first step only.
    groups = [{**group, "initial_lr": group["lr"]} for group in own["param_groups"]]
    return {"state": state, "param_groups": groups}


def _check_kind(own: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> None:
    """Refuse the state of another class of optimizer, which torch would accept."""
    # The keys of the groups are the only trace of the class in a state.
    for key in ("betas", "momentum", "alpha", "rho"):
        if (key in own[0]) != (key in saved[0]):
            one, other = ("checkpoint", "config") if key in saved[0] else ("config", "checkpoint")
            raise RunError(
                f"the optimizer of the {one} has {key}, that of the {other} has not: "
                f"{_REFUSED['optimizer._target_']}; {_ANEW}"
            )

    for key in ("amsgrad", "centered"):
        if bool(own[0].get(key)) != bool(saved[0].get(key)):
            raise RunError(
                f"optimizer.{key}={bool(own[0].get(key))} (was {bool(saved[0].get(key))}): "
                f"{_REFUSED[f'optimizer.{key}']}; {_ANEW}"
            )


def _assumed_names(
    optimizer: torch.optim.Optimizer, names: Sequence[str], saved: Mapping[str, Any]
) -> Sequence[str]:
    """Return the parameter names of an old checkpoint whose groups fit the optimizer."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    old_sizes = [len(group["params"]) for group in saved["param_groups"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    shapes = {
        place: {tuple(v.shape) for v in values.values() if torch.is_tensor(v) and v.dim()}
        for place, values in saved["state"].items()
    }

    # Moments have the shape of their parameter, which tells most wrong orders.
    fit = all(shapes.get(i, set()) <= {tuple(p.shape)} for i, p in enumerate(parameters))
    if sizes != old_sizes or not fit:
        raise RunError(
            f"the optimizer of the checkpoint has groups of {old_sizes} parameters, this one of "
            f"{sizes}, or in another order: which is which cannot be told, because the checkpoint "
            "does not name them. Give optimizer.params.* as the run began with; or " + _ANEW
        )
    return names


def _report_rates(own: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> None:
    """Log which rates change if a checkpoint has no settings to compare with."""
    changes = []
    for key in _RATES:
        # ``initial_lr`` is the rate before the schedule multiplied it.
        old = {str(g.get(f"initial_{key}", g.get(key))) for g in saved}
        new = {str(g.get(key)) for g in own}
        if old != new:
            changes.append(f"{key} {', '.join(sorted(new))} (was {', '.join(sorted(old))})")

    if changes:
        _logger.warning("the optimizer is resumed with other values: %s", "; ".join(changes))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(items: Sequence[str]) -> str:
    more = f", ... ({len(items) - _MAX_SHOWN} more)" if len(items) > _MAX_SHOWN else ""
    return ", ".join(items[:_MAX_SHOWN]) + more


def describe_changes(changes: Sequence[str]) -> str:
    """Describe changes in one sentence.

    Args:
        changes: result of :func:`compare_settings`, at least one change.

    Returns:
        The sentence.
    """
    return f"resumed with other settings, which apply from now on: {_listed(changes)}"
