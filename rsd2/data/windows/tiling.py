"""Windows over large images, and which objects belong to which window; nothing is read here.

A tile is a window of ``size`` x ``size`` pixels of the full image, never resized: tile pixel = full
image pixel - (x, y). Several scales are several window sizes, ``window / rate`` each. The geometry
is the one of the DOTA tiles of ARS-DETR and MutDet (``img_split``): a last window that would leave
the image is shifted back to the border; an object belongs to a window that shows at least
``min_object_fraction`` of its area, and gets difficulty 2 there if a part of it is cut off.

Shapes: N objects, M windows. Polygons are (N, 4, 2) xy pixels, windows (M, 4) x0, y0, x1, y1.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

import numpy as np
import shapely

from rsd2.io.padding import PAD_COLOR

TRUNCATED = 2
"""Difficulty of an object of which a tile shows only a part."""

_FRACTION_TIE = 0.01
_TILE_NAME = re.compile(r"(?P<source>.+)__(?P<size>\d+)__(?P<x>\d+)___(?P<y>\d+)")


@dataclass(frozen=True)
class TilingParameters:
    """How to cut a data set into tiles.

    Attributes:
        window: side of the windows at rate 1, pixels, > 0.
        overlap: shared by neighbouring windows at rate 1, pixels, in [0, window).
        rates: scales; the windows of a rate are ``int(window / rate)`` wide.
        min_image_fraction: windows that show less image than this share of their area are left
            out, unless no window of the image shows as much.
        min_object_fraction: an object is kept in a window that shows at least this share of it.
        padding: fill windows that leave the image with ``pad_color``; else cut them at the border.
        pad_color: RGB, 0-255.
        clip_objects: cut polygons at the window's border (see ``clip_to_window``).
        keep_empty: keep tiles without objects.
    """

    window: int = 1024
    overlap: int = 200
    rates: tuple[float, ...] = (1.0,)
    min_image_fraction: float = 0.6
    min_object_fraction: float = 0.7
    padding: bool = True
    pad_color: tuple[int, int, int] = PAD_COLOR
    clip_objects: bool = False
    keep_empty: bool = True

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be meant."""
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                f"overlap must be in [0, window), got overlap {self.overlap} and window "
                f"{self.window}; the windows advance by window - overlap pixels."
            )
        if not self.rates or any(not rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be positive numbers, got {self.rates}.")
        if any(size < 1 or overlap >= size for size, overlap in self.sizes):
            raise ValueError(f"Rates {self.rates} give windows without a pixel: {self.sizes}.")
        if len({size for size, _ in self.sizes}) < len(self.rates):
            raise ValueError(
                f"Rates {self.rates} give equal windows {self.sizes}; tiles of the same window "
                "would have the same name. Remove one of them."
            )
        for name in ("min_image_fraction", "min_object_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(window, overlap) in pixels of each rate."""
        return [(int(self.window / rate), int(self.overlap / rate)) for rate in self.rates]

    def as_dict(self) -> dict:
        """Return the parameters as a JSON file would give them back (lists for tuples)."""
        values = asdict(self)
        return values | {"rates": list(self.rates), "pad_color": list(self.pad_color)}


def compute_windows(
    width: int, height: int, window: int, overlap: int, min_image_fraction: float = 0.6
) -> np.ndarray:
    """Place windows of one size over an image.

    Args:
        width: of the image, pixels, >= 1.
        height: of the image, pixels, >= 1.
        window: side of the windows, pixels.
        overlap: pixels shared by neighbours, in [0, window).
        min_image_fraction: see ``TilingParameters``.

    Returns:
        (M, 4) int64 windows x0, y0, x1, y1, row by row. Together they cover every pixel, except
        those of windows left out for want of image. Only windows of an image smaller than
        ``window`` leave the image, to the right and below.

    Raises:
        ValueError: if the image has no pixel or the overlap is not smaller than the window.
    """
    if width < 1 or height < 1:
        raise ValueError(f"An image of {width} x {height} pixels cannot be tiled.")
    if not 0 <= overlap < window:
        raise ValueError(f"overlap must be in [0, {window}), got {overlap}.")
    starts_x, starts_y = (window_starts(side, window, overlap) for side in (width, height))
    x0, y0 = (grid.reshape(-1) for grid in np.meshgrid(starts_x, starts_y))
    windows = np.stack([x0, y0, x0 + window, y0 + window], axis=1)
    inside = (np.minimum(windows[:, 2:], (width, height)) - windows[:, :2]).prod(axis=1)
    fractions = inside / window**2
    if (fractions >= min_image_fraction).any():
        return windows[fractions >= min_image_fraction]
    return windows[fractions > fractions.max() - _FRACTION_TIE]


def compute_tile_windows(
    width: int, height: int, parameters: TilingParameters
) -> tuple[np.ndarray, np.ndarray]:
    """Place the windows of all rates over an image.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        parameters: the windows' size, overlap, rates and padding.

    Returns:
        (windows, sizes): (M, 4) int64 x0, y0, x1, y1, cut at the image border if not ``padding``,
        and the (M,) int64 window size that each one is named after.
    """
    per_rate = [
        compute_windows(width, height, size, overlap, parameters.min_image_fraction)
        for size, overlap in parameters.sizes
    ]
    windows = np.concatenate(per_rate)
    sizes = windows[:, 2] - windows[:, 0]
    if not parameters.padding:
        windows[:, 2:] = np.minimum(windows[:, 2:], (width, height))
    return windows, sizes


def visible_fractions(polygons: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Share of each polygon's area that lies in its window.

    Args:
        polygons: (N, 4, 2) xy pixels; self-crossing ones count with the area they enclose.
        window: (4,) one window for all, or (N, 4) one for each: x0, y0, x1, y1.

    Returns:
        (N,) float64 in [0, 1]; exactly 1 if no vertex lies outside; 0 for a polygon without area
        or with a NaN, unless it lies wholly inside.
    """
    polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    windows = np.broadcast_to(np.asarray(window, dtype=np.float64), (len(polygons), 4))
    low, high = polygons.min(axis=1), polygons.max(axis=1)
    inside = ((low >= windows[:, :2]) & (high <= windows[:, 2:])).all(axis=1)
    crossing = ((low < windows[:, 2:]) & (high > windows[:, :2])).all(axis=1) & ~inside
    fractions = inside.astype(np.float64)
    if crossing.any():
        shapes = _valid_polygons(polygons[crossing])
        areas = shapely.area(shapes)
        overlaps = shapely.area(shapely.intersection(shapes, shapely.box(*windows[crossing].T)))
        safe = np.where(areas > 0, areas, 1.0)
        fractions[crossing] = np.clip(np.where(areas > 0, overlaps / safe, 0.0), 0.0, 1.0)
    return fractions


def assign_objects(
    polygons: np.ndarray, windows: np.ndarray, min_object_fraction: float = 0.7
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the objects of every window.

    Args:
        polygons: (N, 4, 2) xy in full-image pixels, finite.
        windows: (M, 4) x0, y0, x1, y1.
        min_object_fraction: share of an object's area that a window must show, in [0, 1].

    Returns:
        (window_index, object_index, truncated): three (K,) arrays, int64, int64 and bool, sorted
        by window, then object; ``truncated`` where a part of the object lies outside the window.
        An object may be in several windows, or in none.
    """
    polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    tree = shapely.STRtree(shapely.box(*polygons.min(axis=1).T, *polygons.max(axis=1).T))
    window_index, object_index = tree.query(shapely.box(*np.asarray(windows, dtype=float).T))
    fractions = visible_fractions(polygons[object_index], np.asarray(windows)[window_index])
    kept = (fractions >= min_object_fraction) & (fractions > 0)
    window_index, object_index = window_index[kept], object_index[kept]
    order = np.lexsort((object_index, window_index))
    return window_index[order], object_index[order], fractions[kept][order] < 1


def clip_to_window(polygons: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Shrink objects to what a window shows of them, without turning them.

    The visible part of a polygon is enclosed by a rectangle parallel to the polygon's longer
    sides. The order of the vertices, and with it the meaning of the first one, is kept.

    Args:
        polygons: (N, 4, 2) xy pixels.
        window: (4,) x0, y0, x1, y1.

    Returns:
        (N, 4, 2) float64; polygons inside the window unchanged; those outside it, or touching it
        without area, all NaN. A rectangle at a slant may leave the window with its corners.
    """
    clipped = np.array(polygons, dtype=np.float64).reshape(-1, 4, 2)
    window = np.asarray(window, dtype=np.float64)
    fractions = visible_fractions(clipped, window)
    clipped[fractions == 0] = np.nan
    for index in np.flatnonzero((fractions > 0) & (fractions < 1)):
        points = clipped[index]
        visible = shapely.intersection(_valid_polygons(points[None])[0], shapely.box(*window))
        corners = shapely.get_coordinates(visible)
        along = points[1] - points[0] + points[2] - points[3]
        across = points[2] - points[1] + points[3] - points[0]
        longer = along if np.hypot(*along) >= np.hypot(*across) else across
        unit = longer / max(np.hypot(*longer), 1e-12)
        frame = np.stack([unit, (-unit[1], unit[0])])
        local, original = corners @ frame.T, points @ frame.T
        low, high = local.min(axis=0), local.max(axis=0)
        clipped[index] = np.where(_upper_ends(original), high, low) @ frame
    return clipped


def tile_annotations(
    polygons: np.ndarray,
    difficult: np.ndarray,
    image_size: tuple[int, int],
    windows: np.ndarray,
    parameters: TilingParameters,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Objects of every window in the window's own pixels.

    Written and virtual tiles both come from here, so that their annotations are the same numbers:
    coordinates are rounded to a thousandth of a pixel. Objects wholly outside the image belong to
    no window, not even where a padded window covers them.

    Args:
        polygons: (N, 4, 2) xy in full-image pixels, finite.
        difficult: (N,) integers, 0, 1 or 2.
        image_size: (height, width) of the full image, pixels.
        windows: (M, 4) x0, y0, x1, y1.
        parameters: of the tiling.

    Returns:
        for each window (object_index (K,) int64, polygons (K, 4, 2) float64 in tile pixels,
        difficult (K,) int64 with 2 where truncated).
    """
    windows = np.asarray(windows)
    polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    shown = np.flatnonzero(
        visible_fractions(polygons, np.array([0, 0, image_size[1], image_size[0]])) > 0
    )
    window_index, object_index, truncated = assign_objects(
        polygons[shown], windows, parameters.min_object_fraction
    )
    object_index = shown[object_index]
    bounds = np.searchsorted(window_index, np.arange(len(windows) + 1))
    tiles = []
    for window, start, stop in zip(windows, bounds[:-1], bounds[1:]):
        objects = object_index[start:stop]
        shapes = polygons[objects]
        if parameters.clip_objects:
            shapes = clip_to_window(shapes, window)
        flags = np.where(truncated[start:stop], TRUNCATED, np.asarray(difficult)[objects])
        tiles.append((objects, np.round(shapes - window[:2], 3), flags.astype(np.int64)))
    return tiles


def crop_window(
    image: np.ndarray, window: np.ndarray, pad_color: tuple[int, int, int] = PAD_COLOR
) -> np.ndarray:
    """Cut a window out of an image; what lies outside the image gets the padding colour.

    Args:
        image: (H, W, 3) uint8; may be a memory map.
        window: (4,) integers x0, y0, x1, y1, x1 > x0, y1 > y0.
        pad_color: in the channel order of ``image``, 0-255.

    Returns:
        (y1 - y0, x1 - x0, 3) uint8, a contiguous copy.
    """
    x0, y0, x1, y1 = (int(value) for value in window)
    height, width = image.shape[:2]
    left, top = max(x0, 0), max(y0, 0)
    part = image[top : max(min(y1, height), top), left : max(min(x1, width), left)]
    if part.shape[:2] == (y1 - y0, x1 - x0):
        return np.array(part, order="C")
    tile = np.empty((y1 - y0, x1 - x0, 3), dtype=np.uint8)
    tile[:] = pad_color
    tile[top - y0 : top - y0 + part.shape[0], left - x0 : left - x0 + part.shape[1]] = part
    return tile


def tile_name(source_id: str, size: int, x: int, y: int) -> str:
    """Name a tile as mmrotate does: ``<image>__<window size>__<x>___<y>``.

    Args:
        source_id: name of the full image without extension.
        size: of the window, pixels, before it was cut at the image border.
        x: first column of the window.
        y: first row of the window.

    Returns:
        the name without extension.
    """
    return f"{source_id}__{size}__{x}___{y}"


def parse_tile_name(name: str) -> tuple[str, int, int, int]:
    """Take a tile's name apart.

    Args:
        name: as ``tile_name`` makes it, without extension.

    Returns:
        (source_id, window size, x, y).

    Raises:
        ValueError: if the name has another form.
    """
    match = _TILE_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a tile name; expected '<image>__<size>__<x>___<y>'.")
    return match["source"], int(match["size"]), int(match["x"]), int(match["y"])


def window_starts(side: int, window: int, overlap: int) -> np.ndarray:
    """First pixels of the windows along one axis; the last window ends at the border.

    Args:
        side: of the image, pixels, >= 1.
        window: side of the windows, pixels.
        overlap: pixels shared by neighbours, in [0, window).

    Returns:
        int64, increasing; 0 alone if the window is not smaller than the image.
    """
    if side <= window:
        return np.zeros(1, dtype=np.int64)
    step = window - overlap
    starts = np.arange(math.ceil((side - window) / step) + 1, dtype=np.int64) * step
    return np.minimum(starts, side - window)


def _valid_polygons(polygons: np.ndarray) -> np.ndarray:
    """Shapely polygons (N,) of (N, 4, 2); self-crossing ones are split into their lobes."""
    finite = np.isfinite(polygons).all(axis=(1, 2))
    shapes = shapely.polygons(np.where(finite[:, None, None], polygons, 0.0))
    invalid = ~shapely.is_valid(shapes)
    if invalid.any():
        shapes[invalid] = shapely.make_valid(shapes[invalid])
    return shapes


def _upper_ends(local: np.ndarray) -> np.ndarray:
    """For four vertices (4, 2) around a rectangle: which lie at the upper end of each axis.

    The corner for vertex k is chosen such that the cycle of the vertices, its sense and its start
    are kept; ranking by the mean of the edges is stable for quadrilaterals that are no rectangles.
    """
    first_edge = local[1] - local[0] + local[2] - local[3]
    axis = int(np.abs(first_edge).argmax())
    upper = np.empty((4, 2), dtype=bool)
    upper[:, axis] = np.array([False, True, True, False]) ^ (first_edge[axis] < 0)
    second = (local[2] - local[1] + local[3] - local[0])[1 - axis]
    upper[:, 1 - axis] = np.array([False, False, True, True]) ^ (second < 0)
    return upper
