"""What models see of their data, measured in training and compared with what they see later."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rsd2.data.mappers.views import Views, note_on_view, usual_views
from rsd2.engine import dataset_names
from rsd2.engine.random_state import preserved_random_state
from rsd2.weights.packed import DESCRIPTION, WEIGHTS

_logger = logging.getLogger(__name__)
_KEYS = ("data.least_extent", "data.greatest_extent", "data.least_scale", "data.greatest_scale")


def measures_in_shares(model: nn.Module) -> bool:
    """Tell whether a model measures boxes in shares of its image.

    Args:
        model: the model, not wrapped.
    """
    return bool(getattr(model, "measures_in_shares", False))


def views_of(cfg: DictConfig, split: str, records: Any) -> Views | None:
    """Measure what the mapper of a loader shows of a dataset.

    Args:
        cfg: the whole config.
        split: ``train`` or ``test``.
        records: dataset dicts of the loader, or None.

    Returns:
        The views; None if the mapper has no ``augmentations`` that take a blank image, or the dicts
        have no sizes.
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
            return usual_views(instantiate(augmentations), sizes)
        # An augmentation of a user may want masks or sidecar files; training decides about it.
        except Exception as error:
            _logger.info(
                "what images show of dataloader.%s could not be measured: %s", split, error
            )
            return None


def as_settings(views: Views | None) -> dict[str, float]:
    """Return views as settings, which a checkpoint keeps.

    Args:
        views: views of the training images, or None.
    """
    return {} if views is None else dict(zip(_KEYS, (*views.extents, *views.scales)))


def recorded_views(checkpoint: Mapping[str, Any], path: str | Path) -> Views | None:
    """Look up what a model saw in its training.

    Args:
        checkpoint: content of the checkpoint.
        path: its path; beside packed weights their description is read.

    Returns:
        The views; None if they are not recorded, as in checkpoints of earlier versions.
    """
    found = (checkpoint.get("trainer") or {}).get("settings") or {}
    if _KEYS[0] not in found:
        described = Path(path).with_name(DESCRIPTION)
        # Read as it is: whoever loads a packed model has compared its weights with their hash.
        is_packed = Path(path).name == WEIGHTS and described.is_file()
        found = (json.loads(described.read_text("utf-8")).get("views") if is_packed else None) or {}
    if any(key not in found for key in _KEYS):
        return None
    values = [float(found[key]) for key in _KEYS]
    return Views((values[0], values[1]), (values[2], values[3]))


def warn_of_other_views(
    cfg: DictConfig, model: nn.Module, trained: Views | None, tested: Views | None
) -> None:
    """Log a warning if a model sees objects in other sizes in the evaluation than in training.

    Args:
        cfg: the whole config.
        model: the model, not wrapped.
        trained: views of the training images; None if they are unknown.
        tested: views of the images of ``dataloader.test``; None if they are unknown.
    """
    if tested is None:
        return
    note = note_on_view(
        trained,
        tested.middle,
        measures_in_shares(model),
        f"dataloader.test: {', '.join(dataset_names(cfg, 'test')) or 'the data'}",
        "test on windows as large as in training (register_virtual_tiles) and with the same "
        "resizing, or train on images like those of the test",
    )
    if note:
        _logger.warning("%s", note)
