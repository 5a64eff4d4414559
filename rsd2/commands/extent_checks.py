"""Extents of images, checked for detectors that measure boxes in shares of their image."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rsd2.data.mappers.extents import Extents, note_on_extent, usual_extents
from rsd2.engine import dataset_names
from rsd2.engine.random_state import preserved_random_state
from rsd2.weights.packed import find_packed

_logger = logging.getLogger(__name__)
_LEAST, _GREATEST = "data.least_extent", "data.greatest_extent"


def measures_in_shares(model: nn.Module) -> bool:
    """Tell whether a model measures boxes in shares of its image.

    Args:
        model: the model, wrapped or not.
    """
    return bool(getattr(getattr(model, "module", model), "measures_in_shares", False))


def extents_of(cfg: DictConfig, split: str, records: Any) -> Extents | None:
    """Measure the extents of a dataset behind the mapper of a loader.

    Args:
        cfg: the whole config.
        split: ``train`` or ``test``.
        records: dataset dicts of the loader, or None.

    Returns:
        The extents; None if the mapper has no ``augmentations`` that take a blank image, or the
        dicts have no sizes.
    """
    augmentations = OmegaConf.select(cfg, f"dataloader.{split}.mapper.augmentations")
    if augmentations is None or not hasattr(records, "__len__"):
        return None
    step = max(1, len(records) // 1000)
    some = [records[i] for i in range(0, len(records), step)]
    known = [r for r in some if isinstance(r, Mapping) and "height" in r and "width" in r]
    with preserved_random_state():
        np.random.seed(0)
        try:
            sizes = [(int(r["height"]), int(r["width"])) for r in known]
            return usual_extents(instantiate(augmentations), sizes)
        # An augmentation of a user may want masks or sidecar files; training decides about it.
        except Exception as error:
            _logger.info("how much of the data an image shows could not be measured: %s", error)
            return None


def as_settings(extents: Extents | None) -> dict[str, float]:
    """Return extents as settings, which a checkpoint keeps.

    Args:
        extents: extents of the training images, or None.
    """
    return {} if extents is None else {_LEAST: extents[0], _GREATEST: extents[1]}


def recorded_extents(checkpoint: Mapping[str, Any], path: str | Path) -> Extents | None:
    """Look up the extents of the images that a model was trained on.

    Args:
        checkpoint: content of the checkpoint.
        path: its path; beside packed weights their description is read.

    Returns:
        The extents; None if they are not recorded, as in checkpoints of earlier versions.
    """
    settings = (checkpoint.get("trainer") or {}).get("settings") or {}
    if _LEAST in settings and _GREATEST in settings:
        return float(settings[_LEAST]), float(settings[_GREATEST])

    packed = find_packed(Path(path).parent)
    found = None if packed is None else packed.description.get("extents")
    return None if found is None else (float(found[0]), float(found[1]))


def warn_of_other_extents(cfg: DictConfig, trained: Extents | None, tested: Extents | None) -> None:
    """Log a warning if images of the evaluation have other extents than those of the training.

    Args:
        cfg: the whole config.
        trained: extents of the training images; None if they are unknown.
        tested: extents of the images of ``dataloader.test``; None if they are unknown.
    """
    if tested is None:
        return
    note = note_on_extent(
        trained,
        (tested[0] + tested[1]) / 2,
        f"dataloader.test: {', '.join(dataset_names(cfg, 'test')) or 'the data'}",
        "test on windows as large as in training (register_virtual_tiles), or train on images as "
        "large as in the test",
    )
    if note:
        _logger.warning("%s", note)
