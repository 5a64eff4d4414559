"""Inputs that name scenes: files, folders, lists, STAC items, and bands in separate files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .raster_files import RasterError

RASTER_ENDINGS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".ntf", ".nitf", ".png", ".jpg", ".bmp")
"""Endings of rasters in folders; a file that is named may have any ending."""


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Attributes:
        name: name of the scene, for results.
        paths: one file, or several files with a part of the bands each.
    """

    name: str
    paths: tuple[str, ...]


def find_scenes(inputs: Sequence[str], stack: bool = False) -> list[SceneFiles]:
    """Find the scenes that a command line asks for.

    Args:
        inputs: raster files of any kind, folders of such files, ``.txt`` files with a scene in each
            line, or STAC items (``.json``), whose assets with the role ``data`` are the bands of
            one scene. Paths in lists and items are relative to the list or item. What GDAL
            reads elsewhere, like ``https://`` or ``/vsis3/``, is taken as it is.
        stack: whether the inputs together are the bands of one scene.

    Returns:
        The scenes, each once, with unique names.

    Raises:
        FileNotFoundError: an input does not exist, or a folder or list holds no scene.
        RasterError: a STAC item cannot be read or has no data.
    """
    if stack:
        for name in inputs:
            if not Path(name).is_file():
                raise FileNotFoundError(f"there is no file {name}; with --stack give the bands")
        return [SceneFiles(Path(inputs[0]).stem, tuple(inputs))]

    # A dict keeps the order and drops a scene that two inputs name.
    found: dict[tuple[str, ...], None] = {}
    for name in inputs:
        found.update(dict.fromkeys(_scenes_of(name)))
    return _named(list(found))


def _scenes_of(name: str) -> list[tuple[str, ...]]:
    """Return the files of each scene that one input names."""
    path = Path(name)
    if _is_elsewhere(name):
        return [(name,)]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in RASTER_ENDINGS)
        if not files:
            raise FileNotFoundError(
                f"folder {path} holds no raster ({', '.join(RASTER_ENDINGS)}); name the files"
            )
        return [(str(file),) for file in files]

    if not path.is_file():
        raise FileNotFoundError(f"there is no scene {name}; correct --input")

    if path.suffix.lower() == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        entries = [_beside(path, line) for line in lines if line and not line.startswith("#")]
        if not entries:
            raise FileNotFoundError(f"list {path} names no scene; write one path in each line")
        return [scene for entry in entries for scene in _scenes_of(entry)]

    if path.suffix.lower() == ".json":
        return [_stac_bands(path)]
    return [(str(path),)]


def _stac_bands(path: Path) -> tuple[str, ...]:
    """Return the files of the bands of a STAC item, in the order of its assets."""
    try:
        item: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        assets = item["assets"].values()
        hrefs = [asset["href"] for asset in assets if "data" in asset.get("roles", ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(
            f"{path} is not a STAC item ({error!r}); give a raster, a folder, or a list in a "
            ".txt file"
        ) from error

    if not hrefs:
        raise RasterError(f"{path}: no asset has the role 'data'; name the files of the bands")

    return tuple(_beside(path, href) for href in hrefs)


def _is_elsewhere(name: str) -> bool:
    """Tell whether GDAL opens a name that is no path of this file system."""
    return "://" in name or name.startswith("/vsi")


def _beside(path: Path, name: str) -> str:
    """Return the path of a file that a list or an item names."""
    return name if _is_elsewhere(name) else str(path.parent / name)


def _named(scenes: list[tuple[str, ...]]) -> list[SceneFiles]:
    """Give every scene a unique name: its stem, with a number if the stem is taken."""
    taken: set[str] = set()
    named = []
    for paths in scenes:
        stem, number = Path(paths[0]).stem, 1
        name = stem
        # Some file systems ignore case, so names that differ in case alone would be one file.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        named.append(SceneFiles(name, paths))

    return named
