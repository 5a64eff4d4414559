"""The libraries of the extra ``geo``: imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def geo_library(name: str) -> ModuleType:
    """Import a library that only georeferenced data needs.

    Args:
        name: dotted name of a module of rasterio, pyogrio or pyproj.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"georeferenced data needs {name.split('.')[0]}, which is missing here ({error}); "
            "install it with: pip install 'rsd2[geo]'"
        ) from error
