"""Files of a raster as GDAL opens them: their content and their place on the ground."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .georeference import Georeference
from .libraries import geo_library


class RasterError(ValueError):
    """A raster that cannot be used or read; the message names the file and what to do."""


def open_dataset(path: str) -> Any:
    """Open a file with GDAL.

    Args:
        path: path of a file, or a name that GDAL understands, like ``/vsicurl/...``.

    Returns:
        rasterio's dataset, with at least one band.

    Raises:
        FileNotFoundError: there is no such file.
        RasterError: GDAL cannot open it, or it has no bands.
    """
    rasterio = geo_library("rasterio")
    is_plain = not re.match(r"/vsi|[A-Za-z][\w+]+:", path)
    if is_plain and not Path(path).exists():
        raise FileNotFoundError(f"There is no raster {path}; correct the path.")
    try:
        with warnings.catch_warnings():
            # The georeference says so itself, in a sentence.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise RasterError(
            f"{path} is not a raster that GDAL can open ({error_reason(error)}); check that the "
            "file is whole and of a known format"
        ) from error

    # Containers like HDF5 hold rasters as parts, which have to be opened by name.
    if not dataset.count:
        inner = dataset.subdatasets
        dataset.close()
        hint = f"; name one of its parts, like {inner[0]}" if inner else "; it is not an image"
        raise RasterError(f"{path} has no bands of its own{hint}")

    return dataset


def error_reason(error: BaseException) -> str:
    """Return GDAL's own message, which rasterio keeps in the cause.

    Args:
        error: error that rasterio raised.

    Returns:
        A line without a full stop.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".;")


def describe_bands(paths: list[str], datasets: list[Any]) -> list[str]:
    """Describe all bands of a scene.

    Args:
        paths: paths of its files.
        datasets: the same files, opened.

    Returns:
        The description of each band. If several files of one band have none, the part of the file
        name that the other names lack, like ``B04``; otherwise an empty text.
    """
    # Words that all names share say nothing about a band.
    tokens = [re.split(r"[_\-. ]+", Path(path).stem) for path in paths]
    common = set.intersection(*(set(words) for words in tokens))
    names = []
    for words, dataset in zip(tokens, datasets):
        own = "_".join(word for word in words if word not in common)
        for description in dataset.descriptions:
            is_single = len(paths) > 1 and dataset.count == 1
            names.append(description or (own if is_single else ""))

    return names


def strip_row_bytes(dataset: Any) -> int:
    """Count what GDAL decodes for one row of a window, however narrow the window is.

    Args:
        dataset: an opened file.

    Returns:
        Bytes; 0 if the file has tiles.
    """
    _, block_width = dataset.block_shapes[0]
    if block_width < dataset.width:
        return 0

    # Interleaved bands are decoded together, also those that nobody asked for.
    return dataset.width * sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)


def read_georeference(dataset: Any, name: str, crs: str | None) -> Georeference:
    """Read how a dataset lies on the ground, from its transform, control points or polynomials.

    Args:
        dataset: an opened file.
        name: name of the file in messages.
        crs: coordinate system to assume instead of the file's own; None takes the file's.

    Returns:
        The georeference, with a note on what it lacks.

    Raises:
        GeoreferenceError: the coordinate system or the transform cannot be used.
    """
    transform = tuple(dataset.transform)[:6]
    own = dataset.crs.to_wkt() if dataset.crs else None
    points, points_crs = dataset.gcps
    # rasterio gives the identity for "no transform", so an identity is no place on the ground.
    if not dataset.transform.is_identity:
        crs = crs or own
        note = "" if crs else f"{name} has a transform but no coordinate system: no metres"
        return Georeference(name, "transform", crs, transform, note=note)

    if points:
        crs = crs or (points_crs.to_wkt() if points_crs else own)
        rows = tuple((p.col, p.row, p.x, p.y, p.z or 0.0) for p in points)
        fitted = Georeference(name, "gcps", crs, points=rows)

        # Hand-picked points need not agree; how far they are off is what a reader can judge.
        places = np.array([(column, row, x, y) for column, row, x, y, _ in rows])
        gaps = np.linalg.norm(fitted.from_crs(places[:, 2:]) - places[:, :2], axis=1)
        note = (
            f"{name}: coordinates follow from {len(rows)} ground control points, which they meet "
            f"within {gaps.max():.2g} pixels"
        )
        if not crs:
            note += "; they have no coordinate system: no metres"
        return replace(fitted, note=note)

    if dataset.rpcs is not None:
        note = (
            f"{name} is not rectified: its coordinates follow from rational polynomials at the "
            "mean height, and are off where the ground is higher or lower; rectify it with a "
            "terrain model: gdalwarp -rpc -to RPC_DEM=<file>"
        )
        warnings.warn(note, stacklevel=3)
        return Georeference(name, "rpcs", "EPSG:4326", rpcs=dataset.rpcs, note=note)

    return Georeference(
        name, note=f"{name} has no coordinates: results are in pixels, x to the right and y down"
    )
