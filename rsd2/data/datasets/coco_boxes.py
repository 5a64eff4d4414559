"""COCO files of upright boxes as Detectron2 datasets, whole images or windows of them.

``rsd2.data.formats.coco`` reads the format itself. Unlike Detectron2's own reader, this one knows
regions to ignore and windows (``corner``), and it reports errors instead of stopping at the first
one or skipping objects silently.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.dataset_dicts import check_record
from rsd2.data.file_names import FolderFiles
from rsd2.data.formats.coco import FLAGS, CocoBox, CocoFile, CocoImage, read_coco_file
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.windows.box_tiling import BoxTiling, TileBoxes, assign_boxes, place_windows

from .polygon_labels import class_names_of

_POLICIES = {
    "unknown_class": ("report", "ignore"),
    "missing_image": ("error", "drop"),
    "dense": ("keep", "drop"),
}
_logger = logging.getLogger(__name__)


def load_coco_boxes(
    annotation_file: str | Path,
    images_dir: str | Path,
    class_names: Sequence[str],
    *,
    aliases: Mapping[str, str] | None = None,
    out_of_image: str = "keep",
    unknown_class: str = "report",
    missing_image: str = "error",
    dense: str = "keep",
    report: LabelReport | None = None,
) -> list[dict]:
    """Read a COCO file of boxes into Detectron2's dataset dicts.

    Args:
        annotation_file: JSON in COCO's format, see ``rsd2.data.formats.coco``.
        images_dir: folder to which the file names in ``annotation_file`` are relative.
        class_names: names of the classes; category k is ``class_names[k]``.
        aliases: category of the file -> name in ``class_names``, for files whose classes are finer
            than those of the task.
        out_of_image: ``"keep"``, ``"clip"`` or ``"drop"``, see ``read_coco_file``.
        unknown_class: ``"report"`` categories without a class, or ``"ignore"`` them silently (for a
            chosen subset of classes); their boxes are dropped either way.
        missing_image: ``"error"``, or ``"drop"`` and report entries whose image file is missing.
        dense: ``"keep"`` or ``"drop"`` images with an annotation flagged ``in_dense_image``, and
            log their number; TinyPerson's benchmark trains and tests without them.
        report: report to fill, if given.

    Returns:
        a dict for each entry of ``images``, in the file's order: ``file_name`` (full path),
        ``image_id`` (name of the file relative to the folder, however the JSON spells it;
        of a window ``name__width__x___y``), ``json_id`` (a number, or a text such as a UUID),
        ``height``, ``width``, ``annotations`` and, for entries with a ``corner``, ``tile`` as in
        ``load_dota_tiles`` with ``virtual`` True and ``source_id`` the file name. An annotation has
        ``bbox`` (x, y, width, height; pixels of the image or window), ``bbox_mode`` XYWH_ABS,
        ``category_id``, ``area`` (square pixels), ``iscrowd`` 0 (a crowd is ``ignore``), and bools
        ``ignore``, ``uncertain``, ``logo``, ``in_dense_image``; ``track_id`` if the file has it.

    Raises:
        FileNotFoundError: if a file, folder or image is missing; see ``missing_image``.
        ValueError: for a broken file or a wrong argument.
    """
    chosen = {"unknown_class": unknown_class, "missing_image": missing_image, "dense": dense}
    for name, value in chosen.items():
        if value not in _POLICIES[name]:
            raise ValueError(f"{name} must be one of {', '.join(_POLICIES[name])}, got {value!r}")

    # Arguments and folders are checked before the file is read, which may take minutes.
    folder, report = Path(images_dir), LabelReport() if report is None else report
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no image folder {folder}; put the images there.")

    content = read_coco_file(annotation_file, report, out_of_image=out_of_image)
    categories, strange = _map_categories(content, class_names, aliases or {})
    for message in strange if unknown_class == "report" else ():
        report.add("unknown_class", annotation_file, None, message)

    files = FolderFiles(folder)
    # Each file is looked up once, although it may have hundreds of windows.
    found = {name: files.find(name) for name in {i.file_name for i in content.images.values()}}
    dense_files = _find_dense(content) if dense == "drop" else set()

    records, seen, num_dense = [], set(), 0
    for image in content.images.values():
        record = _make_record(image, folder, found[image.file_name] or image.file_name)

        # Two ids for one image would count its objects twice.
        if record["image_id"] in seen:
            message = f"image id {image.number} shows {record['image_id']} once more"
            report.add("duplicate_id", annotation_file, None, message)
            continue

        seen.add(record["image_id"])
        if found[image.file_name] is None:
            report.add("missing_image", annotation_file, None, f"no file {record['file_name']}")
            continue
        if image.file_name in dense_files:
            num_dense += 1
            continue

        # Categories without a class are already in the report.
        known = [box for box in content.boxes[image.number] if box.category in categories]
        record["annotations"] = [_make_annotation(box, categories[box.category]) for box in known]
        records.append(record)

    report.log(_logger, str(annotation_file))
    if num_dense:
        _logger.info("%s: %d entries of dense images left out", annotation_file, num_dense)
    # All missing images are in the report by now, so one run names every one of them.
    if report.count("missing_image") and (missing_image == "error" or not records):
        raise FileNotFoundError(
            f"{report.count('missing_image')} of {len(content.images)} images of {annotation_file} "
            f"are not in {folder}: {report.summary()}"
        )

    return records


def make_box_tiles(records: Iterable[dict], tiling: BoxTiling) -> list[dict]:
    """Cut dataset dicts of whole images into dicts of windows, cropped when they are loaded.

    Args:
        records: dataset dicts as ``load_coco_boxes`` returns them, without ``tile``; not changed.
        tiling: the windows, and the rule that assigns boxes to them.

    Returns:
        dicts of windows with ``tile`` (``virtual``); ``annotations`` in the window's pixels, with
        the visible part of the area.

    Raises:
        ValueError: if a dict has no ``image_id``, size or annotations; the message names it.
    """
    tiles = []
    for record in records:
        check_record(record, "image_id", "height", "width", "annotations")
        annotations = record["annotations"]
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        # Corners instead of sizes, as the tiling needs them.
        boxes[:, 2:] += boxes[:, :2]
        windows = place_windows(record["height"], record["width"], tiling)
        for window, shown in zip(windows, assign_boxes(boxes, windows, tiling)):
            if len(shown.indices) or tiling.keep_empty:
                tiles.append(_make_tile(record, window, shown))

    return tiles


def register_coco_boxes(
    name: str,
    metadata: dict,
    annotation_file: str | Path,
    images_dir: str | Path,
    source_dataset: str | None = None,
    **options,
) -> None:
    """Register a COCO file of boxes.

    Args:
        name: name of the dataset.
        metadata: metadata with ``thing_classes``; kept in the metadata catalog.
        annotation_file: path of the JSON file.
        images_dir: folder to which the file names in ``annotation_file`` are relative.
        source_dataset: dataset of the whole images with which the evaluator compares, if this file
            lists windows of them.
        options: further arguments of ``load_coco_boxes``.

    Raises:
        ValueError: if ``thing_classes`` is missing or not a list of names.
    """
    classes = class_names_of(metadata)
    DatasetCatalog.register(
        name, partial(load_coco_boxes, annotation_file, images_dir, classes, **options)
    )
    extra = {} if source_dataset is None else {"source_dataset": source_dataset}
    MetadataCatalog.get(name).set(
        **metadata, json_file=str(annotation_file), image_root=str(images_dir), **extra
    )


def register_box_tiles(name: str, source_dataset: str, **parameters) -> None:
    """Register the windows of a dataset of whole images as a dataset of their own.

    Args:
        name: name of the new dataset.
        source_dataset: a registered dataset of whole images; the new dataset has its classes.
        parameters: arguments of ``BoxTiling``: ``window=(640, 512)``, ``overlap=(50, 50)``, ...

    Raises:
        ValueError: for wrong parameters, or if the source has no ``thing_classes``.
    """
    tiling = BoxTiling(**parameters)
    source = MetadataCatalog.get(source_dataset)
    metadata = {key: value for key, value in source.as_dict().items() if key != "name"}
    class_names_of(metadata)
    DatasetCatalog.register(name, partial(_load_box_tiles, source_dataset, tiling))
    MetadataCatalog.get(name).set(**(metadata | {"source_dataset": source_dataset}))


def _load_box_tiles(source_dataset: str, tiling: BoxTiling) -> list[dict]:
    return make_box_tiles(DatasetCatalog.get(source_dataset), tiling)


def _map_categories(
    content: CocoFile, class_names: Sequence[str], aliases: Mapping[str, str]
) -> tuple[dict[int | str, int], list[str]]:
    """Return category id of the file -> class index, and messages on categories without class."""
    classes = {name: index for index, name in enumerate(class_names)}
    unknown = sorted(set(aliases.values()) - set(classes))
    if unknown:
        raise ValueError(f"aliases name classes {unknown} that are not in {list(class_names)}")

    names = {number: aliases.get(name, name) for number, name in content.categories.items()}
    counts = Counter(box.category for group in content.boxes.values() for box in group)
    strange = [
        f"category {name!r} (id {number}, {counts[number]} boxes) is not in the class list"
        for number, name in names.items()
        if name not in classes
    ]
    return {number: classes[name] for number, name in names.items() if name in classes}, strange


def _find_dense(content: CocoFile) -> set[str]:
    """Return files of which any entry, even a window, has an annotation with ``in_dense_image``."""
    return {
        image.file_name
        for image in content.images.values()
        if any("in_dense_image" in box.flags for box in content.boxes[image.number])
    }


def _make_record(image: CocoImage, folder: Path, name: str) -> dict:
    """Return the dict of an image without annotations; ``name`` is relative to the folder."""
    record = {
        "file_name": str(folder / name),
        "image_id": name,
        "json_id": image.number,
        "height": image.height,
        "width": image.width,
    }
    if image.corner is None:
        return record
    return _as_window(record, image.corner)


def _make_annotation(box: CocoBox, category: int) -> dict:

    flags = {flag: flag in box.flags for flag in FLAGS}
    # Detectron2 drops crowds from training; a region to ignore stays and is not learned.
    flags["ignore"] |= box.is_crowd
    track = {} if box.track is None else {"track_id": box.track}
    return {
        "bbox": list(box.box),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "area": box.area,
        "iscrowd": 0,
        **flags,
        **track,
    }


def _as_window(record: dict, window: Sequence[int] | np.ndarray) -> dict:
    """Return the dict of a window of a whole image, without its annotations."""
    x0, y0, x1, y1 = (int(value) for value in window)
    size = {"width": x1 - x0, "height": y1 - y0}
    source = record["image_id"]
    return {
        **{key: value for key, value in record.items() if key != "annotations"},
        "image_id": f"{source}__{x1 - x0}__{x0}___{y0}",
        **size,
        "tile": {"source_id": source, "x": x0, "y": y0, **size, "virtual": True},
    }


def _make_tile(record: dict, window: np.ndarray, shown: TileBoxes) -> dict:
    tile = _as_window(record, window)
    tile["tile"] |= {"source_width": record["width"], "source_height": record["height"]}
    tile["annotations"] = []
    for index, (x0, y0, x1, y1), fragment in zip(
        shown.indices, shown.boxes.tolist(), shown.is_fragment.tolist()
    ):
        annotation = record["annotations"][index]
        across, down = x1 - x0, y1 - y0
        # A stated area may be that of a mask, of which the window shows about the box's share.
        whole = annotation["bbox"][2] * annotation["bbox"][3]
        area = annotation.get("area", whole)
        tile["annotations"].append(
            annotation
            | {
                "bbox": [x0, y0, across, down],
                "area": area * across * down / whole,
                "ignore": annotation.get("ignore", False) or fragment,
            }
        )

    return tile
