"""Packed models: a folder with all that detection needs, and nothing else of its training.

    model.safetensors   the weights alone
    config.yaml         the config that builds the model
    README.md           the model card
    model.json          classes, pixels and the SHA-256 of the weights

A config names the classes that it builds its model from, so only load folders of people you trust.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rsd2.io.files import file_digest

from .errors import CheckpointError

DESCRIPTION, WEIGHTS, CONFIG, CARD = "model.json", "model.safetensors", "config.yaml", "README.md"
MODELS_VARIABLE = "RSD2_MODELS"
"""Environment variable: the folder or ``file:`` address in which models are found by their name."""


@dataclass(frozen=True)
class PackedModel:
    """A packed model whose weights are those that its description names.

    Attributes:
        folder: the folder.
        description: content of ``model.json``: ``name``, ``classes``, ``pixels``, ``views`` (what
            the training images showed), ``weights_sha256``, ``ema``, ``iteration`` and ``rsd2``,
            the version that packed it.
    """

    folder: Path
    description: dict[str, Any]

    @property
    def weights(self) -> Path:
        """Path of the file of weights."""
        return self.folder / WEIGHTS

    @property
    def config(self) -> Path:
        """Path of the config."""
        return self.folder / CONFIG

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their indices."""
        return list(self.description["classes"])


def find_packed(name: str | Path) -> PackedModel | None:
    """Find a packed model and check that its weights arrived whole.

    Args:
        name: folder, ``file:`` address of one, or name of a model in the folder that the
            environment variable ``RSD2_MODELS`` names.

    Returns:
        The model; None if there is no such folder.

    Raises:
        CheckpointError: the folder is incomplete, or its weights are not those that it names; or a
            ``file:`` address leads nowhere.
    """
    folder = _local_path(name)
    home = os.environ.get(MODELS_VARIABLE)
    # A folder at hand wins over a name, as a program at a path wins over PATH.
    places = [folder, *([_local_path(home) / folder] if home else [])]
    found = next((place for place in places if (place / DESCRIPTION).is_file()), None)
    if found is None:
        if str(name).startswith("file:"):
            raise CheckpointError(f"{name} leads to no packed model: {folder} has no {DESCRIPTION}")
        return None

    missing = [one for one in (WEIGHTS, CONFIG) if not (found / one).is_file()]
    if missing:
        raise CheckpointError(f"{found} has no {' and no '.join(missing)}; copy it again")
    try:
        packed = PackedModel(found, json.loads((found / DESCRIPTION).read_text(encoding="utf-8")))
        expected, _ = packed.description["weights_sha256"], packed.classes
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{found / DESCRIPTION} is broken ({error}); copy it again"
        ) from error

    digest = file_digest(packed.weights)
    if digest != expected:
        raise CheckpointError(
            f"{packed.weights} has sha256 {digest}, but {DESCRIPTION} names {expected}: the file "
            "is damaged or of another model; copy the folder again"
        )
    return packed


def _local_path(name: str | Path) -> Path:
    text = str(name)
    return Path(url2pathname(urlsplit(text).path)) if text.startswith("file:") else Path(text)
