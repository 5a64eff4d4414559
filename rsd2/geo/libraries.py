"""The libraries of the extra ``geo``, imported on first use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from rsd2.io.extras import import_extra

CACHE_BYTES = 160 * 2**20
"""GDAL's cache of decoded blocks, whose default is a twentieth of the machine's memory.

It holds the rows of one window over a striped file of 30,000 x 3 bytes a row, so that its windows
decode each strip once; with the windows themselves, reading stays below 300 MB.
"""


def geo_library(name: str) -> ModuleType:
    """Import a library that only georeferenced data needs.

    Args:
        name: dotted name of a module of rasterio, pyogrio or pyproj.

    Returns:
        The module.

    Raises:
        ImportError: the library is not installed; the message says how to install it.
    """
    try:
        return import_extra(name)
    except ImportError as error:
        raise ImportError(
            f"georeferenced data needs {name.split('.')[0]}, which is missing here ({error}); "
            "install it with: pip install 'rsd2[geo]'"
        ) from error


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Bound GDAL's cache of the blocks that rasterio reads or writes within this context.

    The environment variable ``GDAL_CACHEMAX`` wins over this bound.

    Raises:
        ImportError: rasterio is missing.
    """
    options = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": CACHE_BYTES}
    with geo_library("rasterio").Env(**options):
        yield
