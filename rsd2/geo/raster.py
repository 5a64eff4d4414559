"""Rasters of any kind that GDAL knows, read by windows in bounded memory.

One scene is one file (GeoTIFF tiled or striped, COG, JPEG 2000, VRT mosaic, ...) or several files
with a part of the bands each. A `Radiometry` defines the meaning of the numbers.

Shapes: B bands that are read, h, w size of a window, H, W of the scene.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .grid import Grid, make_grid
from .libraries import CACHE_BYTES, bounded_cache, geo_library
from .radiometry import Radiometry
from .raster_files import (
    RasterError,
    describe_bands,
    error_reason,
    open_dataset,
    read_georeference,
    strip_row_bytes,
)

_SAMPLE_SIDE = 256
_SAMPLE_PLACES = 8
_READ_WHOLE = 2**25
"""Largest scene, pixels, that is sampled as a whole; larger ones are sampled in places."""

_MARGIN = 4
"""Extra pixels around a resampled window, so that its border equals that of its neighbours."""


class RasterWindow(NamedTuple):
    """A part of a scene as the model sees it.

    Args:
        pixels: (h, w, B) in 0 to 255, uint8 or float32.
        valid: (h, w) bool, False where there are no data.
    """

    pixels: np.ndarray
    valid: np.ndarray


class _Band(NamedTuple):
    """Place of a band of the scene: the file, and the number within it, counted from 1."""

    file: int
    number: int


class Raster:
    """A scene opened for reading; close it or use it as a context.

    It can be pickled and survives a fork: each process opens files of its own when it first reads.
    GDAL's handles belong to one thread at a time.

    Args:
        paths: a file, or anything else that GDAL opens; or several, whose bands together make the
            scene and whose sizes and places are equal.
        crs: coordinate system to assume instead of the file's own, like ``"EPSG:32633"``.

    Attributes:
        name: name of the scene, for messages and results: its path, the first one of several.
        height: H, pixels.
        width: W, pixels.
        dtypes: type of each band.
        descriptions: description of each band; for several files, what tells their names apart,
            like ``B04``.
        nodata: number that means "no data", of each band; None for none.
        georeference: georeference that says where the pixels lie on the ground.

    Raises:
        FileNotFoundError: there is no such file.
        RasterError: GDAL cannot open it, it has no bands, or several files do not fit together.
        GeoreferenceError: its coordinate system or transform cannot be used.
        ImportError: rasterio or pyproj is missing.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], crs: str | None = None) -> None:
        several = [paths] if isinstance(paths, str | Path) else paths
        self.paths = [str(path) for path in several]
        if not self.paths:
            raise RasterError("a scene needs at least one file, got none")
        self.name = self.paths[0]
        self._handles: tuple[int, list[Any]] | None = None

        datasets = self._datasets()
        first = datasets[0]
        self.height, self.width = first.height, first.width
        self._check_fit(datasets)
        self._bands = [
            _Band(file, number)
            for file, dataset in enumerate(datasets)
            for number in dataset.indexes
        ]
        self.dtypes: Sequence[str] = [kind for dataset in datasets for kind in dataset.dtypes]
        self.nodata = [value for dataset in datasets for value in dataset.nodatavals]
        self._colors = [kind.name for dataset in datasets for kind in dataset.colorinterp]
        self._masks = [flags for dataset in datasets for flags in dataset.mask_flag_enums]
        self.descriptions = describe_bands(self.paths, datasets)
        self._has_overviews = all(dataset.overviews(1) for dataset in datasets)
        self._strip_bytes = strip_row_bytes(first)
        self.georeference = read_georeference(first, self.name, crs)

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Open handles cannot be pickled; each process opens its own.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": None}

    def __repr__(self) -> str:
        return f"Raster({self.name}: {self.height} x {self.width}, {len(self._bands)} bands)"

    def close(self) -> None:
        """Close the files; reading opens them again."""
        if self._handles is not None:
            for dataset in self._handles[1]:
                dataset.close()
        self._handles = None

    @property
    def num_bands(self) -> int:
        """Number of bands, including an alpha channel."""
        return len(self._bands)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Metres of a pixel along a row and a column at the scene's centre, or None."""
        return self.georeference.pixel_size(self.width / 2, self.height / 2)

    def note_on_layout(self, window_height: int) -> str:
        """Describe a file layout that makes windows slow.

        Args:
            window_height: height of the windows that will be read, pixels.

        Returns:
            A sentence; empty if the layout is fine.
        """
        needed = self._strip_bytes * min(window_height, self.height)
        if needed <= CACHE_BYTES:
            return ""
        return (
            f"{self.name} is stored in rows and not in tiles: every window decodes "
            f"{needed / 2**20:.0f} MB of rows; a tiled copy is read many times faster: "
            "gdal_translate -of COG, or lower windows"
        )

    def grid(self, gsd: float | None = None, scale: float = 1.0) -> Grid:
        """Choose the pixels that the model sees.

        Args:
            gsd: metres of a pixel on the ground, > 0; None keeps the scene's own pixels.
            scale: further factor, pixels of the grid per pixel, > 0.

        Returns:
            The grid.

        Raises:
            ValueError: a number is out of range, or ``gsd`` is given for a scene without
                coordinates.
        """
        size = None if gsd is None else self.pixel_size
        return make_grid(self.height, self.width, size, gsd, scale)

    def band_numbers(self, bands: Sequence[int | str] | None = None) -> tuple[int, ...]:
        """Find bands by number, description or colour.

        Args:
            bands: numbers, from 1, or descriptions; None finds red, green and blue by their
                colours, else takes the only three bands, or the only band three times.

        Returns:
            Their numbers, from 1.

        Raises:
            RasterError: there is no such band, nothing tells which bands to choose, or a band holds
                something other than brightness.
        """
        if bands is None:
            numbers = self._usual_bands()
        else:
            numbers = tuple(self._band_number(band) for band in bands)

        for number in numbers:
            if self._colors[number - 1] == "palette":
                raise RasterError(
                    f"{self.name}: the numbers of band {number} are places in a colour table; "
                    "write the colours themselves with: gdal_translate -expand rgb"
                )
            if "complex" in self.dtypes[number - 1]:
                raise RasterError(
                    f"{self.name}: band {number} holds complex numbers; write their magnitude first"
                )

        return numbers

    def _usual_bands(self) -> tuple[int, ...]:
        colors = ("red", "green", "blue")
        if all(self._colors.count(color) == 1 for color in colors):
            return tuple(self._colors.index(color) + 1 for color in colors)
        # Gray rasters fill all three channels of the model with their only band.
        data = [number for number, kind in enumerate(self._colors, 1) if kind != "alpha"]
        if len(data) in (1, 3):
            return tuple(data * 3)[:3]
        raise RasterError(
            f"{self.name} has the bands {self._list_bands()}, and nothing says which are red, "
            "green and blue; name the bands of the radiometry, like bands=[4, 3, 2]"
        )

    def _band_number(self, band: int | str) -> int:
        names = [name.casefold() for name in self.descriptions]
        if isinstance(band, str) and names.count(band.casefold()) == 1:
            return names.index(band.casefold()) + 1
        if isinstance(band, int) and 1 <= band <= len(self._bands):
            return band
        raise RasterError(f"{self.name} has no single band {band!r}; it has {self._list_bands()}")

    def _list_bands(self) -> str:
        return ", ".join(
            f"{number} ({name})" if name else str(number)
            for number, name in enumerate(self.descriptions, 1)
        )

    def read_window(
        self,
        top: int,
        left: int,
        height: int,
        width: int,
        radiometry: Radiometry,
        grid: Grid | None = None,
    ) -> RasterWindow:
        """Read a window as a model sees it.

        Args:
            top: first row, pixels of the grid; the window may leave the scene.
            left: first column, pixels of the grid; the window may leave the scene.
            height: h, pixels of the grid, >= 1.
            width: w, pixels of the grid, >= 1.
            radiometry: fixed radiometry, from :meth:`Radiometry.measure` of this scene.
            grid: grid of resampled pixels; None takes the scene's own pixels.

        Returns:
            The pixels, and where there are data; equal to the same part of a larger window.

        Raises:
            RasterError: the file is damaged there.
            RadiometryError: the radiometry does not suit the numbers.
        """
        bands = self.band_numbers(radiometry.bands)
        grid = grid or self.grid()
        rows = max(top, 0), min(top + height, grid.height)
        columns = max(left, 0), min(left + width, grid.width)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            fill = radiometry.fill_values(len(bands))
            valid = np.zeros((height, width), dtype=bool)
            return RasterWindow(np.broadcast_to(fill, (height, width, len(bands))).copy(), valid)

        values, valid = self._read(bands, rows, columns, grid, radiometry.nodata)
        pixels = radiometry.apply(values, valid)
        if values.dtype.kind == "f":
            valid = valid & np.isfinite(values).all(axis=-1)
        if valid.shape == (height, width):
            return RasterWindow(pixels, valid)

        # The part of the window outside the scene has no data.
        whole = np.empty((height, width, len(bands)), dtype=pixels.dtype)
        whole[:] = radiometry.fill_values(len(bands))
        inside = np.zeros((height, width), dtype=bool)
        part = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
        whole[part], inside[part] = pixels, valid
        return RasterWindow(whole, inside)

    def read_overview(self, max_size: int, radiometry: Radiometry) -> tuple[RasterWindow, Grid]:
        """Read the whole scene in few pixels.

        Args:
            max_size: longer side at most, pixels, >= 1; a smaller scene stays as it is.
            radiometry: fixed radiometry of the scene.

        Returns:
            The pixels, and the grid that they form.

        Raises:
            RasterError: the file is damaged.
        """
        scale = min(1.0, max_size / max(self.height, self.width))
        grid = self.grid(scale=scale)
        return self.read_window(0, 0, grid.height, grid.width, radiometry, grid), grid

    def read_sample(
        self, bands: Sequence[int], nodata: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read numbers from all over the scene: of an overview, or at regular places.

        Args:
            bands: B numbers, from 1.
            nodata: one more number that means "no data".

        Returns:
            (h, w, B) numbers as they are stored, and (h, w) where there are data; about half a
            million pixels.

        Raises:
            RasterError: the file is damaged.
        """
        is_small = self.height * self.width <= _READ_WHOLE
        if is_small or self._has_overviews:
            side = _SAMPLE_SIDE * _SAMPLE_PLACES / 2
            grid = self.grid(scale=min(1.0, side / max(self.height, self.width)))

            # Averages would narrow the range, so single pixels are taken.
            return self._read(
                bands, (0, grid.height), (0, grid.width), grid, nodata, is_sample=True
            )

        grid, parts = self.grid(), []
        for top in _spread(self.height):
            for left in _spread(self.width):
                rows = top, min(top + _SAMPLE_SIDE, self.height)
                columns = left, min(left + _SAMPLE_SIDE, self.width)
                values, valid = self._read(bands, rows, columns, grid, nodata)

                # An eighth of the pixels says as much, because neighbours are alike.
                parts.append((values[::4, ::2].reshape(-1, len(bands)), valid[::4, ::2].ravel()))

        values, valid = (np.concatenate(items) for items in zip(*parts))
        return values[None], valid[None]

    def _read(
        self,
        bands: Sequence[int],
        rows: tuple[int, int],
        columns: tuple[int, int],
        grid: Grid,
        nodata: float | None,
        is_sample: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers (h, w, B) and validity (h, w) of a part of the grid, ends exclusive."""
        # The kernel of the resampling reads beyond its window; without a margin, seams would show.
        margin = 0 if grid.is_scene or is_sample else _MARGIN
        top, bottom = max(0, rows[0] - margin), min(grid.height, rows[1] + margin)
        left, right = max(0, columns[0] - margin), min(grid.width, columns[1] + margin)
        scale_x, scale_y = grid.scale
        window = geo_library("rasterio.windows").Window(
            left / scale_x, top / scale_y, (right - left) / scale_x, (bottom - top) / scale_y
        )
        methods = geo_library("rasterio.enums").Resampling
        shape = (bottom - top, right - left)
        # Bilinear alone skips pixels when it shrinks, which makes noise of fine texture.
        method = methods.average if min(scale_x, scale_y) < 1 else methods.bilinear
        if grid.is_scene or is_sample:
            method = methods.nearest

        with self._reading(window):
            values = self._read_bands(bands, window, shape, method)
            valid = self._read_validity(bands, window, shape, methods.nearest)
        if nodata is not None:
            valid = valid & ~(values == nodata).all(axis=-1)
        inner = (
            slice(rows[0] - top, rows[1] - top),
            slice(columns[0] - left, columns[1] - left),
        )
        return values[inner], valid[inner]

    def _read_bands(
        self, bands: Sequence[int], window: Any, shape: tuple[int, int], method: Any
    ) -> np.ndarray:
        """Return numbers (h, w, B); each file is read once, with all of its bands."""
        distinct = sorted(set(bands))
        kind = np.result_type(*(self.dtypes[band - 1] for band in distinct))
        values = np.empty((*shape, len(distinct)), dtype=kind)
        for file, dataset in enumerate(self._datasets()):
            places = [k for k, band in enumerate(distinct) if self._bands[band - 1].file == file]
            if not places:
                continue
            numbers = [self._bands[distinct[k] - 1].number for k in places]

            # Bands of one file are neighbours here: GDAL writes the channels side by side itself.
            part = values[..., places[0] : places[-1] + 1].transpose(2, 0, 1)
            dataset.read(numbers, window=window, out=part, resampling=method)

        if tuple(distinct) == tuple(bands):
            return values
        return values[..., [distinct.index(band) for band in bands]]

    def _read_validity(
        self, bands: Sequence[int], window: Any, shape: tuple[int, int], method: Any
    ) -> np.ndarray:
        """Return where any band has data (h, w): by nodata values, masks, alpha channels."""
        valid = np.zeros(shape, dtype=bool)
        files_done: set[int] = set()
        for band in sorted(set(bands)):
            file, number = self._bands[band - 1]
            flags = {flag.name for flag in self._masks[band - 1]}
            if "all_valid" in flags:
                return np.ones(shape, dtype=bool)
            if "per_dataset" in flags:  # one mask or alpha channel serves all bands of a file
                if file in files_done:
                    continue
                files_done.add(file)

            mask = self._datasets()[file].read_masks(
                number, window=window, out_shape=shape, resampling=method
            )
            valid |= mask > 0

        return valid

    @contextmanager
    def _reading(self, window: Any) -> Iterator[None]:
        """Bound GDAL's memory, and name the place where a file is damaged."""
        try:
            with bounded_cache():
                yield
        except geo_library("rasterio.errors").RasterioError as error:
            bottom, right = window.row_off + window.height, window.col_off + window.width
            raise RasterError(
                f"{self.name} cannot be read in rows {window.row_off:.0f} to {bottom:.0f}, columns "
                f"{window.col_off:.0f} to {right:.0f} ({error_reason(error)}); the file is "
                "truncated or damaged: copy or download it again"
            ) from error

    def _datasets(self) -> list[Any]:
        """Return the files, opened by this process: handles must not be shared after a fork."""
        process = os.getpid()
        if self._handles is None or self._handles[0] != process:
            self._handles = (process, [open_dataset(path) for path in self.paths])
        return self._handles[1]

    def _check_fit(self, datasets: list[Any]) -> None:
        first = datasets[0]
        for path, dataset in zip(self.paths[1:], datasets[1:]):
            if (dataset.height, dataset.width) != (first.height, first.width):
                different = (
                    f"{dataset.height} x {dataset.width} and {first.height} x {first.width} pixels"
                )
            elif not dataset.transform.almost_equals(first.transform, 1e-9) or (
                dataset.crs != first.crs
            ):
                different = "another place on the ground"
            else:
                continue

            raise RasterError(
                f"{path} and {self.name} cannot be bands of one scene: they have {different}; "
                "resample them into one file with: gdalbuildvrt -separate -resolution highest"
            )


def _spread(size: int) -> list[int]:
    """Return first pixels of sampled places along a side, in the middles of equal parts of it."""
    count = max(1, min(_SAMPLE_PLACES, size // _SAMPLE_SIDE))
    return [max(0, int((k + 0.5) * size / count) - _SAMPLE_SIDE // 2) for k in range(count)]
