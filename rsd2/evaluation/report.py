"""What stands in the file of metrics beside the numbers of any evaluator."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import shapely
import torch

import rsd2

if TYPE_CHECKING:
    from .matching.boxes import BoxTruth
    from .scoring.dota import GroundTruth


def mean_percent(values: np.ndarray) -> float:
    """Return the mean of what is defined.

    Args:
        values: numbers in [0, 1], ``nan`` where undefined; any shape.

    Returns:
        Percentage, ``nan`` if no value is defined.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is nan
        return float(100 * np.nanmean(values))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "rsd2": rsd2.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "shapely": shapely.__version__,
        "geos": shapely.geos_version_string,
    }


def ground_truth_digest(truth: BoxTruth | GroundTruth) -> str:
    """Fingerprint of the labels, so that two records can be seen to use the same ones.

    Args:
        truth: labels of a dataset.

    Returns:
        SHA-256 in hexadecimal of image ids, class names and all arrays of the labels.
    """
    digest = hashlib.sha256(json.dumps([truth.image_ids, truth.class_names]).encode())
    for field in fields(truth)[2:]:
        digest.update(np.ascontiguousarray(getattr(truth, field.name)).tobytes())
    return digest.hexdigest()


def to_json(record: object) -> str:
    """Serialise a record; what is undefined (``nan``) becomes ``null``, as JSON demands.

    Args:
        record: nested dicts and lists of JSON types.

    Returns:
        Indented text that ends in a newline.
    """
    return json.dumps(_without_nan(record), indent=2, allow_nan=False) + "\n"


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
