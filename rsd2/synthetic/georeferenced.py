"""Synthetic scenes with coordinates: GeoTIFF files of any size with labels in GeoPackages.

A scene is a mosaic of drawn tiles, written row by row of tiles, so that 30,000 x 30,000 pixels need
no more memory than a strip of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.geo.georeference import LONGITUDE_LATITUDE, Georeference, transform_points
from rsd2.geo.libraries import bounded_cache, geo_library
from rsd2.geo.vector_files import VectorWriter, read_vector_file
from rsd2.io.files import replaced_file
from rsd2.io.worker_pool import run_in_processes

from .scenes.scene import SceneConfig, SceneObject, draw_scene
from .writer import RECORD_NAME, NumberedFolder, scene_name

SIXTEEN_BIT_LOW = 200
SIXTEEN_BIT_STEP = 7
"""A 16-bit scene holds 200 + 7 x the 8-bit number: whoever keeps the high byte sees black."""

_TILES_PER_SCENE = 10**6
_CUT = 2
_METRES_OF_MEASURE = 100.0
_COLORS = (
    (255, 60, 60),
    (60, 220, 60),
    (255, 160, 0),
    (240, 240, 0),
    (0, 200, 255),
    (255, 0, 255),
    (80, 120, 255),
)


@dataclass(frozen=True)
class PlaceConfig:
    """Where scenes lie, and how their files are laid out.

    Args:
        size: (height, width) of a scene, pixels, >= 32.
        crs: coordinate system, anything that pyproj understands.
        longitude: longitude of the first scene's upper left corner, degrees.
        latitude: latitude of the first scene's upper left corner, degrees.
        gsd: metres of a pixel on the ground, > 0.
        rotation: direction of the scene's upward side, degrees clockwise from true north.
        sixteen_bit: whether to write 11-bit numbers as 16-bit ones, instead of 8-bit ones.
        tiled: whether the file is laid out in tiles; otherwise in strips of rows.
        num_tiles: number of different tiles to draw and repeat, which is quick; None draws
            each tile anew.
    """

    size: tuple[int, int] = (2048, 2048)
    crs: str = "EPSG:32632"
    longitude: float = 9.9
    latitude: float = 53.5
    gsd: float = 0.33
    rotation: float = 0.0
    sixteen_bit: bool = False
    tiled: bool = True
    num_tiles: int | None = None

    def __post_init__(self) -> None:
        """Validate the numbers."""
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < 32:
            raise ValueError(f"size must be height and width of 32 pixels or more, got {self.size}")
        if not self.gsd > 0:
            raise ValueError(f"gsd must be positive, got {self.gsd}")
        if not (-180 <= self.longitude <= 180 and -89 <= self.latitude <= 89):
            raise ValueError(
                f"longitude must lie in [-180, 180] and latitude in [-89, 89], got "
                f"{self.longitude} and {self.latitude}"
            )
        if self.num_tiles is not None and self.num_tiles < 1:
            raise ValueError(f"num_tiles must be at least 1, got {self.num_tiles}")


def write_georeferenced_scenes(
    folder: str | Path,
    num_images: int,
    config: SceneConfig,
    place: PlaceConfig,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Write scenes with labels, or finish a folder that was begun.

    The folder gets ``S000000.tif``, ``S000000.gpkg`` (columns ``class`` and ``difficult``) and
    ``scenes.json``. The labels come last, so that they stand for a complete scene; complete scenes
    are kept. The scenes lie in a row from west to east.

    Args:
        folder: folder to write to; created if it is missing.
        num_images: number of scenes in the finished folder, >= 1.
        config: look of the ground; its ``size`` is the size of the square tiles.
        place: position and size of the scenes.
        seed: seed of the dataset, >= 0.
        num_workers: number of processes that draw; 0 draws in this one. The files do not depend
            on it.
        progress: whether to show a progress bar.
        shard: (rank, number of processes) when several processes share the folder: each draws its
            part, the last process to finish counts the objects.

    Returns:
        The folder.

    Raises:
        ValueError: a number is out of range, or the place is not part of the coordinate system.
        FolderTakenError: the folder holds scenes of other parameters, or files of another origin.
        OSError: a file cannot be written.
        ImportError: rasterio, pyogrio or pyproj is missing.
    """
    folder = Path(folder)
    # Before the folder is made, so that a wrong size leaves nothing behind.

    _tile_side(config)
    parameters = {**config.to_dict(), "place": asdict(place), "seed": seed}
    head = {"parameters": parameters, "classes": list(SYNTHETIC_CLASSES)}
    files = partial(_scene_files, folder)
    draw = partial(_write_numbered, folder, config, place, seed, num_workers, progress)
    gather = partial(_count, [files(index)[-1] for index in range(num_images)])

    scenes = NumberedFolder(
        folder / RECORD_NAME, head, "georeferenced scenes", num_images, files, draw, gather
    )
    # One scene after the other: the workers share the tiles of each.
    scenes.finish(0, False, shard)
    return folder


def _tile_side(config: SceneConfig) -> int:
    """Return the side of the square tiles, which GeoTIFF requires to be a multiple of 16."""
    height, width = np.broadcast_to(config.size, 2).tolist()
    if height != width or height % 16:
        raise ValueError(f"tiles must be square and a multiple of 16 wide, got {config.size}")
    return height


def _scene_files(folder: Path, index: int) -> list[Path]:
    """List the files of a complete scene, the labels last."""
    return [folder / f"{scene_name(index)}{ending}" for ending in (".tif", ".gpkg")]


def _write_numbered(
    folder: Path,
    config: SceneConfig,
    place: PlaceConfig,
    seed: int,
    num_workers: int,
    progress: bool,
    index: int,
) -> None:
    path = _scene_files(folder, index)[0]
    write_georeferenced_scene(path, config, place, seed, index, num_workers, progress)


def write_georeferenced_scene(
    path: Path,
    config: SceneConfig,
    place: PlaceConfig,
    seed: int = 0,
    index: int = 0,
    num_workers: int = 0,
    progress: bool = False,
) -> Path:
    """Write one scene and its labels.

    Args:
        path: path of the GeoTIFF file; the labels get the ending ``.gpkg``.
        config: look of the ground; its ``size`` is the size of the square tiles.
        place: position and size of the scene.
        seed: seed of the dataset, >= 0.
        index: index of the scene in the dataset, >= 0; it lies that many scenes east of the first.
        num_workers: number of processes that draw; 0 draws in this one.
        progress: whether to show a progress bar.

    Returns:
        Path of the labels.

    Raises:
        ValueError: the place is not part of the coordinate system.
        OSError: a file cannot be written.
    """
    georeference = _georeference(path.name, place, index)
    height, width = place.size
    side = _tile_side(config)
    rows, columns = math.ceil(height / side), math.ceil(width / side)

    description = {"seed": seed, "index": index, **asdict(place)}
    labels = path.with_suffix(".gpkg")
    writer = VectorWriter(
        labels,
        crs=place.crs,
        metadata=description,
        colors=dict(zip(SYNTHETIC_CLASSES, _COLORS)),
        layer="labels",
    )

    profile = _profile(place, side, georeference)
    with (
        bounded_cache(),
        tqdm(total=rows * columns, desc=path.stem, unit="tile", disable=not progress) as bar,
        writer,  # ends last, so that the labels stand for a whole scene
        replaced_file(path) as temporary,
        geo_library("rasterio").open(temporary, "w", **profile) as dataset,
    ):
        dataset.update_tags(rsd2_synthetic=json.dumps(description))
        tiles = _draw_tiles(config, place, seed, index, rows * columns, num_workers)
        for row in range(rows):
            # Whole rows of tiles, so that nothing has to wait in GDAL's cache for its neighbours.
            strip = np.zeros((min(side, height - row * side), width, 3), dtype=np.uint8)
            for column in range(columns):
                image, objects = next(tiles)
                part = strip[:, column * side : (column + 1) * side]
                part[:] = image[: part.shape[0], : part.shape[1]]
                _add_labels(writer, objects, georeference, (row, column), side, place.size)

                bar.update()
            _write_strip(dataset, strip, row * side, place.sixteen_bit)

    return labels


def _profile(place: PlaceConfig, side: int, georeference: Georeference) -> dict[str, Any]:
    """Return rasterio's options for the layout of the file."""
    rasterio = geo_library("rasterio")
    layout = {"tiled": True, "blockxsize": side, "blockysize": side} if place.tiled else {}
    return {
        "driver": "GTiff",
        "height": place.size[0],
        "width": place.size[1],
        "count": 3,
        "dtype": "uint16" if place.sixteen_bit else "uint8",
        "crs": place.crs,
        "transform": rasterio.Affine(*georeference.transform),
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 2,
        "photometric": "RGB",
        "bigtiff": "IF_SAFER",
        **layout,
    }


def _write_strip(dataset: Any, strip: np.ndarray, top: int, sixteen_bit: bool) -> None:
    window = geo_library("rasterio.windows").Window(0, top, strip.shape[1], strip.shape[0])
    for band in (1, 2, 3):
        # A wider type first, because 8 bits would overflow.
        plane = strip[..., band - 1]
        if sixteen_bit:
            plane = plane.astype(np.uint16) * SIXTEEN_BIT_STEP + SIXTEEN_BIT_LOW
        dataset.write(plane, band, window=window)


def _draw_tiles(
    config: SceneConfig,
    place: PlaceConfig,
    seed: int,
    index: int,
    count: int,
    num_workers: int,
) -> Iterator[tuple[np.ndarray, list[SceneObject]]]:
    """Yield tiles in the order of the mosaic."""
    # Every scene has its own range of indices, so that no two scenes share a tile.
    first = index * _TILES_PER_SCENE
    draw = partial(_draw_tile, config, seed)
    if place.num_tiles is None:
        yield from run_in_processes(draw, range(first, first + count), num_workers)
        return

    # Few tiles in a random order: neighbours must not repeat at a fixed distance.

    kinds = list(run_in_processes(draw, range(first, first + place.num_tiles), num_workers))
    rng = np.random.default_rng([seed, index])
    for kind in rng.integers(0, len(kinds), count):
        yield kinds[kind]


def _draw_tile(config: SceneConfig, seed: int, index: int) -> tuple[np.ndarray, list[SceneObject]]:
    scene = draw_scene(config, seed, index)
    return scene.image, scene.objects


def _add_labels(
    writer: VectorWriter,
    objects: list[SceneObject],
    georeference: Georeference,
    tile: tuple[int, int],
    side: int,
    size: tuple[int, int],
) -> None:
    """Write the labels of a tile; objects that its border or the scene's cuts are difficult."""
    polygons = np.array([item.poly for item in objects]).reshape(-1, 4, 2)
    polygons = polygons + np.array([tile[1], tile[0]]) * side
    low = np.array([tile[1], tile[0]]) * side
    high = np.minimum(low + side, size[::-1])

    # A pixel of tolerance, because outlines of whole objects may touch the border.
    is_whole = ((polygons >= low - 1) & (polygons <= high + 1)).all(axis=(1, 2))
    keep = (polygons.max(axis=1) > low).all(axis=1) & (polygons.min(axis=1) < high).all(axis=1)
    difficult = np.where(is_whole, [item.difficult for item in objects], _CUT).astype(np.int32)

    writer.add(
        georeference.to_crs(polygons[keep]),
        {
            "class": np.array([item.name for item in objects], dtype=object)[keep],
            "difficult": difficult[keep],
        },
    )


def _count(files: list[Path]) -> dict[str, Any]:
    """Count the objects of all scenes by class and difficulty."""
    names: Counter[str] = Counter()
    levels: Counter[int] = Counter()
    empty = 0
    for file in files:
        _, columns, _ = read_vector_file(file, "labels")
        names.update(columns["class"].tolist())
        levels.update(columns["difficult"].tolist())
        empty += not len(columns["class"])
    return {
        "num_images": len(files),
        "empty_images": empty,
        "objects": {name: names[name] for name in SYNTHETIC_CLASSES},
        "difficult": {str(level): levels[level] for level in range(3)},
    }


def _georeference(name: str, place: PlaceConfig, index: int) -> Georeference:
    """Make pixels square on the ground at the upper left corner, in any coordinate system."""
    geod = geo_library("pyproj").Geod(ellps="WGS84")

    corner = place.longitude, place.latitude
    if index:
        # A tenth of a scene lies between two scenes, so that they never overlap.
        gap = 1.1 * index * place.size[1] * place.gsd
        corner = geod.fwd(*corner, 90 + place.rotation, gap)[:2]

    # The projection's scale and rotation follow from two short ground distances.
    right = geod.fwd(*corner, 90 + place.rotation, _METRES_OF_MEASURE)[:2]
    down = geod.fwd(*corner, 180 + place.rotation, _METRES_OF_MEASURE)[:2]
    points = transform_points(np.array([corner, right, down]), LONGITUDE_LATITUDE, place.crs)
    if not np.isfinite(points).all():
        raise ValueError(
            f"{place.longitude:g} E, {place.latitude:g} N is no place of {place.crs}; choose "
            "another place or coordinate system"
        )

    x, y = ((points[1:] - points[0]) * place.gsd / _METRES_OF_MEASURE).tolist()
    transform = (x[0], y[0], points[0, 0], x[1], y[1], points[0, 1])
    return replace(Georeference(name), kind="transform", crs=place.crs, transform=transform)
