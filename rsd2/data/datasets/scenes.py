"""Georeferenced scenes with labels as datasets, read window by window during training.

Labels are polygons with coordinates (GeoPackage, GeoJSON, FlatGeobuf, ...) or COCO's JSON. No tiles
are written: the mapper reads each window from the raster, through the radiometry of the scene.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog

from rsd2.data.formats.coco_shapes import read_coco_shapes
from rsd2.geo.labels import SceneLabels, read_scene_labels
from rsd2.geo.radiometry import Radiometry, RadiometryError
from rsd2.geo.raster import Raster
from rsd2.geo.scene_files import SceneFiles, find_scenes

from .dota import class_names_of, set_dota_metadata
from .dota_tiles import register_virtual_tiles
from .polygon_labels import category_ids, fill_annotations

LABEL_ENDINGS = (".gpkg", ".geojson", ".fgb", ".geojsonl", ".geojsonseq", ".json")
"""Endings of label files, in the order in which a folder of labels is searched for them."""

_logger = logging.getLogger(__name__)


def read_labels(
    path: str | Path,
    raster: Raster,
    class_column: str | None = "class",
    *,
    class_name: str = "object",
    crowds: str = "detect",
    in_pixels: bool = False,
) -> tuple[SceneLabels, np.ndarray]:
    """Read the labels of a scene from a vector file or a COCO file.

    Args:
        path: path of a vector file with coordinates, or of a COCO file (``.json``).
        raster: the opened scene.
        class_column: column of a vector file that holds the classes; None if all objects are
            ``class_name``.
        class_name: class of all objects if there is no ``class_column``.
        crowds: meaning of ``iscrowd`` in a COCO file, see `read_coco_shapes`.
        in_pixels: whether the coordinates of a vector file are pixels of the scene.

    Returns:
        The objects in pixels of the scene, and (N,) int64 1 for difficult ones, else 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or does not fit the scene.
    """
    size = (raster.height, raster.width)
    if _is_coco(Path(path)):
        return read_coco_shapes(path, raster.paths, size, crowds)

    # Vector files have no difficult flag, so every object counts.
    labels = read_scene_labels(
        path,
        raster.georeference,
        size,
        class_column,
        class_name=class_name,
        in_pixels=in_pixels,
    )
    return labels, np.zeros(len(labels), dtype=np.int64)


def load_scenes(
    scenes: Sequence[SceneFiles],
    labels: Sequence[str | Path | None],
    classes: Sequence[str],
    *,
    radiometry: Radiometry | None = None,
    class_column: str | None = "class",
    crowds: str = "detect",
    in_pixels: bool = False,
    gsd: float | None = None,
    scale: float = 1.0,
    crs: str | None = None,
) -> list[dict]:
    """Read scenes and labels into dataset dicts of whole scenes; see `register_scenes`.

    Args:
        scenes: files of each scene.
        labels: label file of each scene, or None for a scene without labels.
        classes: names of the categories; category k is ``classes[k]``.
        radiometry: rule that turns the raster's numbers into colours; percentiles are measured
            here, once for each scene.
        class_column: see `read_labels`.
        crowds: see `read_labels`.
        in_pixels: see `read_labels`.
        gsd: side of a pixel of the model, metres; None keeps the pixels of the scene.
        scale: further factor, pixels of the model per pixel of the scene.
        crs: coordinate system to assume instead of the files' own.

    Returns:
        Dicts like those of ``load_dota_instances``, in pixels of the model, with the key
        ``raster``: ``paths``, ``crs``, ``grid`` (see `Grid`), ``radiometry`` (the rule) and
        ``measured`` (the rule with the ranges of this scene).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a raster, its numbers or its labels cannot be used.
    """
    categories = category_ids(classes)
    rule = radiometry or Radiometry()

    records = []
    for files, path in zip(scenes, labels):
        with Raster(files.paths, crs=crs) as raster:
            grid, fixed = raster.grid(gsd, scale), rule.measure(raster)

            # The dict holds plain values alone, because loader workers receive it pickled.
            record = {
                "file_name": files.paths[0],
                "image_id": files.name,
                "height": grid.height,
                "width": grid.width,
                "raster": {
                    "paths": list(files.paths),
                    "crs": crs,
                    "grid": asdict(grid),
                    "radiometry": rule.to_dict(),
                    "measured": fixed.to_dict(),
                },
            }

            text = "no labels"
            if path is None and labels is not None:
                # Labels are there, but none for this scene: it shows no object.
                record["annotations"] = []
            elif path is not None:
                found, difficult = read_labels(
                    path,
                    raster,
                    class_column,
                    class_name=classes[0],
                    crowds=crowds,
                    in_pixels=in_pixels,
                )

                # Labels are in pixels of the scene, but windows and annotations in pixels of the
                # model.
                rows = zip(grid.from_scene(found.polygons), found.names, difficult.tolist())
                record["annotations"] = [
                    (polygon, categories[name], flag, {})
                    for polygon, name, flag in rows
                    if name in categories
                ]
                text = found.describe() + _describe_unknown(found.names, categories, path)

            _logger.info("Scene %s: %s; %s", files.name, text, _describe_range(fixed))
            records.append(record)

    # A scene without labels keeps no key for them, like images whose labels are hidden.
    fill_annotations([record for record in records if "annotations" in record])
    return records


def register_scenes(
    name: str,
    scenes: str | Path | Sequence[str | Path | Sequence[str | Path]],
    labels: str | Path | Sequence[str | Path | None] | None,
    classes: Sequence[str],
    *,
    window: int = 1024,
    overlap: int = 200,
    metadata: dict | None = None,
    **options,
) -> str:
    """Register scenes with labels for training and evaluation: the whole scenes and their windows.

    The dataset ``name`` holds the whole scenes, which ``DotaEvaluator`` scores. The dataset
    ``<name>_<window>_<overlap>`` holds their windows, which the mapper reads from the rasters.

    Args:
        name: name of the dataset of whole scenes.
        scenes: a raster, a folder of them, a list in a ``.txt`` file, or several of these; a
            sequence inside the sequence holds the files of one scene's bands.
        labels: label file of each scene, in their order; one file for all; a folder with label
            files named like their scenes (a scene without one has no objects); or None.
        classes: names of the categories; category k is ``classes[k]``. Labels of other classes are
            left out and counted.
        window: side of the windows, pixels of the model, see ``gsd`` and ``scale``.
        overlap: overlap of neighbouring windows, pixels of the model.
        metadata: further entries for Detectron2's ``MetadataCatalog``.
        options: further arguments of `load_scenes`: ``radiometry``, ``class_column``, ``crowds``,
            ``in_pixels``, ``gsd``, ``scale``, ``crs``.

    Returns:
        Name of the dataset of windows.

    Raises:
        FileNotFoundError: if a scene or a label file is missing.
        RadiometryError: if a scene has numbers of more than 8 bits, and no ``radiometry`` says what
            they mean.
        ValueError: if a file or an argument cannot be used.
    """
    found = _find_scenes(scenes)
    files = find_labels(labels, found)

    # Headers are read here, so that a scene without a rule stops before the training begins.
    rule = options.get("radiometry") or Radiometry()
    for one in found:
        with Raster(one.paths, crs=options.get("crs")) as raster:
            _check_numbers(raster, rule)

    return register_scene_files(
        name, found, files, classes, window=window, overlap=overlap, metadata=metadata, **options
    )


def register_scene_files(
    name: str,
    scenes: Sequence[SceneFiles],
    labels: Sequence[str | Path | None],
    classes: Sequence[str],
    *,
    window: int,
    overlap: int,
    metadata: dict | None = None,
    **options,
) -> str:
    """Register scenes whose files need not be there yet; see `register_scenes`.

    Args:
        name: name of the dataset of whole scenes.
        scenes: files of each scene.
        labels: label file of each scene, or None.
        classes: names of the classes.
        window: side of the windows, pixels of the model.
        overlap: overlap of neighbouring windows, pixels of the model.
        metadata: further entries for Detectron2's ``MetadataCatalog``.
        options: further arguments of `load_scenes`.

    Returns:
        Name of the dataset of windows.

    Raises:
        ValueError: if an argument is wrong.
    """
    # An unknown option would else raise a TypeError only when the dataset is first read.
    known = load_scenes.__kwdefaults__ or {}
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        raise ValueError(f"scenes have no option {unknown[0]!r}; they have {', '.join(known)}")

    described = {**(metadata or {}), "thing_classes": list(classes)}
    names = class_names_of(described)

    DatasetCatalog.register(name, partial(load_scenes, scenes, labels, names, **options))
    set_dota_metadata(name, described)

    tiles = f"{name}_{window}_{overlap}"
    register_virtual_tiles(tiles, name, window=window, overlap=overlap)
    return tiles


def _find_scenes(
    scenes: str | Path | Sequence[str | Path | Sequence[str | Path]],
) -> list[SceneFiles]:
    if isinstance(scenes, str | Path):
        return find_scenes([str(scenes)])

    plain = [str(one) for one in scenes if isinstance(one, str | Path)]
    stacks = [[str(file) for file in one] for one in scenes if not isinstance(one, str | Path)]

    # One sequence of paths could be four scenes or the four bands of one.
    if plain and stacks:
        raise ValueError("scenes of one file and of several cannot be mixed; list each as files")
    if not plain and not stacks:
        raise ValueError("scenes names no raster; give a file, a folder, or a list of them")
    return [scene for stack in stacks for scene in find_scenes(stack, True)] or find_scenes(plain)


def find_labels(
    labels: str | Path | Sequence[str | Path | None] | None, scenes: Sequence[SceneFiles]
) -> list[str | Path | None]:
    """Find the file of labels of each scene.

    Args:
        labels: label file of each scene, in their order; one file for all; a folder with label
            files named like their scenes; or None.
        scenes: files of each scene.

    Returns:
        The label file of each scene, or None.

    Raises:
        FileNotFoundError: if a file is missing, or a folder holds none.
        ValueError: if the numbers of label files and scenes differ.
    """
    if labels is None:
        return [None] * len(scenes)
    if not isinstance(labels, str | Path):
        if len(labels) != len(scenes):
            raise ValueError(f"{len(labels)} files of labels for {len(scenes)} scenes; give each")
        files = list(labels)
    elif Path(labels).is_dir():
        files = [_label_file(Path(labels), scene.name) for scene in scenes]
        # One missing file may be meant; a folder without any is a wrong path.
        if not any(files):
            raise FileNotFoundError(
                f"folder {labels} has no labels for {scenes[0].name} or another scene; a file has "
                f"the name of its scene and ends in {', '.join(LABEL_ENDINGS)}"
            )
        for scene, file in zip(scenes, files):
            if file is None:
                _logger.warning("No labels of %s in %s: no objects", scene.name, labels)
    else:
        files = [labels] * len(scenes)

    for file in files:
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(f"there is no file of labels {file}; correct the path")
    return files


def _label_file(folder: Path, scene: str) -> Path | None:
    files = (folder / f"{scene}{ending}" for ending in LABEL_ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _is_coco(path: Path) -> bool:
    """Return whether a file is COCO's and not GeoJSON, which share an ending."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return False  # GDAL reads the file next and names its error
    return isinstance(content, dict) and "annotations" in content


def _check_numbers(raster: Raster, rule: Radiometry) -> None:
    """Refuse numbers without a rule, judged by the headers of the files alone."""
    bands = raster.band_numbers(rule.bands)
    kinds = sorted({raster.dtypes[band - 1] for band in bands})
    if rule.scaling == "uint8" and kinds != ["uint8"]:
        raise RadiometryError(
            f"{raster.name} holds {' and '.join(kinds)} numbers, not 8-bit colours; pass "
            "radiometry=Radiometry(scaling='percentile'), or 'range' with low and high, and give "
            "the same one to the mappers of the config"
        )


def _describe_unknown(names: Sequence[str], categories: dict[str, int], path: str | Path) -> str:
    unknown = Counter(name for name in names if name not in categories)
    if not unknown:
        return ""

    listed = ", ".join(f"{number} {name}" for name, number in unknown.most_common(5))
    _logger.warning(
        "%s: %d objects are of classes that are not in the list and are left out: %s",
        path,
        unknown.total(),
        listed,
    )
    return f"; of other classes: {listed}"


def _describe_range(fixed: Radiometry) -> str:
    bands = list(fixed.bands or ())
    if fixed.scaling == "uint8":
        return f"bands {bands} as they are"
    low, high = ([f"{value:.6g}" for value in values or ()] for values in (fixed.low, fixed.high))
    return f"bands {bands}, {low} become 0 and {high} 255"
