"""Tiles of DOTA images as Detectron2 data sets: written, or virtual and cropped at load time.

Both know their place in the full image (key ``tile``), so that detections can be brought back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.dataset_dicts import check_record, polygon_of
from rsd2.data.formats.dota import check_dota_class_names
from rsd2.data.windows.tile_index import INDEX_NAME, TileIndex
from rsd2.data.windows.tiling import (
    TilingParameters,
    compute_tile_windows,
    parse_tile_name,
    tile_annotations,
    tile_name,
)

from .dota import load_dota_instances, set_dota_metadata
from .polygon_labels import class_names_of, fill_annotations

_OF_FULL_IMAGE = {
    *("bbox", "bbox_mode", "category_id", "poly", "difficult"),
    *("area", "segmentation", "keypoints"),
}
"""Fields of an annotation that a tile states anew, or that do not hold in its pixels."""


def load_dota_tiles(tiles_dir: str | Path, class_names: Sequence[str], **options) -> list[dict]:
    """Read a folder of tiles into dataset dicts that know their place in the full image.

    Args:
        tiles_dir: holds ``images``, ``labelTxt`` (none for a test set) and, if
            ``tools/prepare_dota.py`` wrote it, ``tiles.json``. Without that file the place is
            taken from the name, as mmrotate writes it.
        class_names: category k is ``class_names[k]``.
        options: of ``load_dota_instances``. ``out_of_image`` is ``"ignore"`` by default, because
            a tile may cut its objects.

    Returns:
        as ``load_dota_instances``, and ``tile``: ``source_id``, ``x``, ``y``, ``width``,
        ``height``, ``virtual`` (False), with an index also ``source_width``, ``source_height``.

    Raises:
        FileNotFoundError: if a folder is missing or the tiles of the index are not all there.
        ValueError: if a name says no place and there is no index, or sizes differ from the index.
    """
    folder = Path(tiles_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no tile folder {folder}; tools/prepare_dota.py --output {folder} makes it."
        )
    has_index = (folder / INDEX_NAME).is_file()
    index = TileIndex.load(folder) if has_index else None
    labels = folder / "labelTxt"
    labels_dir = labels if (index.has_labels if index else labels.is_dir()) else None
    options.setdefault("out_of_image", "ignore")
    records = load_dota_instances(labels_dir, folder / "images", class_names, **options)
    if index is None:
        for record in records:
            source_id, _, x, y = parse_tile_name(record["image_id"])
            record["tile"] = _tile_entry(record, source_id, x, y, virtual=False)
        return records
    tiles = {tile.name: tile for tile in index.tiles}
    sizes = {source.source_id: (source.width, source.height) for source in index.sources}
    missing = sorted(tiles.keys() - {record["image_id"] for record in records})
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(tiles)} tiles of {folder} cannot be used, for example "
            f"{missing[0]}; run tools/prepare_dota.py again, it writes what is missing."
        )
    records = [record for record in records if record["image_id"] in tiles]
    for record in records:
        tile = tiles[record["image_id"]]
        if (record["width"], record["height"]) != (tile.width, tile.height):
            raise ValueError(
                f"{record['file_name']} has {record['width']} x {record['height']} pixels, but "
                f"{INDEX_NAME} says {tile.width} x {tile.height}; delete it and run "
                "tools/prepare_dota.py again."
            )
        record["tile"] = _tile_entry(record, tile.source_id, tile.x, tile.y, virtual=False)
        record["tile"] |= dict(zip(("source_width", "source_height"), sizes[tile.source_id]))
    return records


def make_virtual_tiles(records: Iterable[dict], parameters: TilingParameters) -> list[dict]:
    """Cut dataset dicts of full images into dicts of windows, which the mapper crops when it loads.

    Names, windows and annotations equal those of tiles written with the same parameters.

    Args:
        records: as ``load_dota_instances`` returns them, or any of Detectron2's dicts with rotated
            or upright boxes (see ``rsd2.data.dataset_dicts``); not changed.
        parameters: of the tiling.

    Returns:
        dicts whose ``file_name`` is the full image, ``height`` and ``width`` those of the window,
        ``annotations`` in tile pixels, ``tile`` as in ``load_dota_tiles`` with ``virtual`` True.
        Flags, tracks and the like of an annotation stay; masks and key points do not.

    Raises:
        ValueError: if a dict has no ``image_id`` or size, or an object no place; it is named.
    """
    tiles = []
    for record in records:
        check_record(record, "file_name", "image_id", "height", "width")
        annotations = record.get("annotations", [])
        shapes = [polygon_of(annotation, record["image_id"]) for annotation in annotations]
        polygons = np.array(shapes, dtype=np.float64).reshape(-1, 4, 2)
        difficult = np.array([a.get("difficult", 0) for a in annotations], dtype=np.int64)
        image_size = (record["height"], record["width"])
        windows, sizes = compute_tile_windows(*reversed(image_size), parameters)
        objects = tile_annotations(polygons, difficult, image_size, windows, parameters)
        for window, size, (indices, shapes, flags) in zip(windows, sizes, objects):
            if not len(indices) and not parameters.keep_empty:
                continue
            x, y, x1, y1 = (int(value) for value in window)
            tile = {
                **record,
                "image_id": tile_name(record["image_id"], int(size), x, y),
                "height": y1 - y,
                "width": x1 - x,
            }
            tile["tile"] = _tile_entry(tile, record["image_id"], x, y, virtual=True)
            tile["tile"] |= {"source_width": record["width"], "source_height": record["height"]}
            if "annotations" in record:
                own = [annotations[index] for index in indices]
                more = [_kept_fields(annotation, x, y) for annotation in own]
                categories = [annotation["category_id"] for annotation in own]
                tile["annotations"] = list(zip(shapes, categories, flags, more))
            tiles.append(tile)
    labelled = [tile for tile in tiles if "annotations" in tile]
    fill_annotations(labelled)
    return tiles


def register_dota_tiles(
    name: str,
    metadata: dict,
    tiles_dir: str | Path,
    source_dataset: str | None = None,
    **options,
) -> None:
    """Register a folder of written tiles.

    Args:
        name: of the data set.
        metadata: as for ``register_dota_instances``.
        tiles_dir: holds ``images``, ``labelTxt`` and ``tiles.json``.
        source_dataset: name of the data set of full images, whose labels the evaluator compares
            with; without it the tiles are evaluated as they are.
        options: of ``load_dota_instances``.

    Raises:
        ValueError: if ``thing_classes`` is missing or no list of names.
    """
    classes = check_dota_class_names(class_names_of(metadata))
    DatasetCatalog.register(name, partial(load_dota_tiles, tiles_dir, classes, **options))
    extra = {} if source_dataset is None else {"source_dataset": source_dataset}
    folder = Path(tiles_dir)
    set_dota_metadata(
        name,
        metadata,
        labels_dir=str(folder / "labelTxt"),
        images_dir=str(folder / "images"),
        **extra,
    )


def register_virtual_tiles(name: str, source_dataset: str, **parameters) -> None:
    """Register the windows of a data set of full images as a data set of their own.

    Nothing is written: the mapper decodes the full image and crops the window.

    Args:
        name: of the new data set.
        source_dataset: a registered data set of full images; its classes are taken over.
        parameters: of ``TilingParameters``: ``window=1024``, ``overlap=200``, ...

    Raises:
        ValueError: for wrong parameters, or if the source has no ``thing_classes``.
    """
    tiling = TilingParameters(**parameters)
    source = MetadataCatalog.get(source_dataset)
    metadata = {k: v for k, v in source.as_dict().items() if k != "name"}
    if "thing_classes" not in metadata:
        raise ValueError(
            f"Data set {source_dataset!r} has no thing_classes; register it before its tiles."
        )
    DatasetCatalog.register(name, partial(_load_virtual_tiles, source_dataset, tiling))
    set_dota_metadata(name, metadata, source_dataset=source_dataset)


def _load_virtual_tiles(source_dataset: str, parameters: TilingParameters) -> list[dict]:
    return make_virtual_tiles(DatasetCatalog.get(source_dataset), parameters)


def _kept_fields(annotation: dict, x: int, y: int) -> dict:
    """What an annotation says besides its place, and the head in pixels of the tile."""
    kept = {key: value for key, value in annotation.items() if key not in _OF_FULL_IMAGE}
    if "head" in annotation:
        kept["head"] = np.subtract(annotation["head"], (x, y)).tolist()
    return kept


def _tile_entry(record: dict, source_id: str, x: int, y: int, virtual: bool) -> dict:
    size = {"width": record["width"], "height": record["height"]}
    return {"source_id": source_id, "x": x, "y": y, **size, "virtual": virtual}
