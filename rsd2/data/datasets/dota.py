"""DOTA folders as Detectron2 data sets.

The format itself is in ``rsd2.data.dota_format``, the folders expected under
``$DETECTRON2_DATASETS`` in ``README.md`` beside this file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.dota_format import (
    DotaLabels,
    apply_border_policy,
    find_images,
    find_labels,
    read_dota_labels,
)
from rsd2.data.image_io import IMAGE_EXTENSIONS, read_image_size
from rsd2.data.label_report import LabelReport
from rsd2.structures import corners_to_boxes

DOTA_V1_0_CLASSES = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
"""In mmrotate's order, which is the one of most published checkpoints."""
DOTA_V1_5_CLASSES = (*DOTA_V1_0_CLASSES, "container-crane")
DOTA_V2_0_CLASSES = (*DOTA_V1_5_CLASSES, "airport", "helipad")

_POLICIES = {
    "on_problem": ("report", "error"),
    "unknown_class": ("report", "ignore", "error"),
    "out_of_image": ("keep", "clip", "drop", "error", "ignore"),
    "missing_label": ("empty", "drop", "error"),
}
_BATCH = 200_000


def load_dota_instances(
    labels_dir: str | Path | None,
    images_dir: str | Path,
    class_names: Sequence[str],
    *,
    image_extensions: Sequence[str] = IMAGE_EXTENSIONS,
    on_problem: str = "report",
    unknown_class: str = "report",
    out_of_image: str = "keep",
    missing_label: str = "empty",
    border_tolerance: float = 1.0,
    report: LabelReport | None = None,
) -> list[dict]:
    """Read a DOTA folder into Detectron2's dataset dicts.

    Everything that is wrong is counted and logged once with file and line; whatever cannot be used
    is left out. The sizes come from the image headers, no pixel is decoded.

    Args:
        labels_dir: folder of text files, or None for images without labels.
        images_dir: folder of images.
        class_names: category k is ``class_names[k]``.
        image_extensions: lower case, with dot.
        on_problem: ``"report"``, or ``"error"`` to raise if anything at all is wrong.
        unknown_class: what to do with names that are not in the list: leave them out and
            ``"report"`` them, ``"ignore"`` them without a word (a chosen subset of classes), or
            raise an ``"error"``.
        out_of_image: ``"keep"``, ``"clip"``, ``"drop"`` or ``"error"`` for objects outside the
            image or crossing its border (see ``apply_border_policy``), all of them reported;
            ``"ignore"`` keeps them unreported, for tiles that may cut their objects.
        missing_label: an image without label file is taken as ``"empty"`` (it shows no object),
            or ``"drop"`` it, or raise an ``"error"``; reported in any case.
        border_tolerance: pixels by which a vertex may lie outside.
        report: is filled if given.

    Returns:
        a dict for each image, sorted by name: ``file_name``, ``image_id`` (the name without
        extension), ``height``, ``width``, and with labels ``annotations``: ``bbox`` (canonical
        cx, cy, w, h in pixels, angle in degrees), ``bbox_mode`` XYWHA_ABS, ``category_id``,
        ``poly`` (x1, y1, ... y4 as in the file), ``difficult`` (0, 1, 2), ``iscrowd`` (0).

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: for a wrong argument, or because a policy says ``"error"``; the message lists
            the problems with file and line.
    """
    policies = {
        "on_problem": on_problem,
        "unknown_class": unknown_class,
        "out_of_image": out_of_image,
        "missing_label": missing_label,
    }
    _check_policies(**policies)
    categories = _category_ids(class_names)
    report = LabelReport() if report is None else report
    images = find_images(images_dir, report, image_extensions)
    labelled = set() if labels_dir is None else find_labels(labels_dir, images, report)
    records = []
    for (name, image), size in zip(images.items(), _read_sizes(images.values(), report)):
        path = None if labels_dir is None else Path(labels_dir) / f"{name}.txt"
        missing = path is not None and name not in labelled
        if missing:
            fate = "dropped" if missing_label == "drop" else "kept"
            report.add("image_without_label", image, None, f"no file {path}", fate)
        if size is None or (missing and missing_label == "drop"):
            continue
        record = {"file_name": str(image), "image_id": name, "height": size[0], "width": size[1]}
        if path is not None:
            labels = DotaLabels.empty() if missing else read_dota_labels(path, report)
            labels = _select_known(labels, categories, unknown_class, path, report)
            if out_of_image != "ignore":
                labels = apply_border_policy(
                    labels, size, out_of_image, path, report, border_tolerance
                )
            category_ids = [categories[label] for label in labels.names]
            record["annotations"] = list(zip(labels.polygons, category_ids, labels.difficult))
            report.objects += len(labels)
        records.append(record)
    if labels_dir is not None:
        fill_annotations(records)
    folder = str(images_dir if labels_dir is None else labels_dir)
    report.log(logging.getLogger(__name__), folder)
    _raise_by_policy(report, folder, **policies)
    return records


def register_dota_instances(
    name: str,
    metadata: dict,
    labels_dir: str | Path | None,
    images_dir: str | Path,
    **options,
) -> None:
    """Register a DOTA folder; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: of the data set; a name can be registered once per process.
        metadata: ``thing_classes``, a list of class names, and whatever else
            ``MetadataCatalog`` shall keep.
        labels_dir: folder of text files, or None.
        images_dir: folder of images.
        options: of ``load_dota_instances``.

    Raises:
        ValueError: if ``thing_classes`` is missing or no list of names.
    """
    classes = class_names_of(metadata)
    load = partial(load_dota_instances, labels_dir, images_dir, classes, **options)
    DatasetCatalog.register(name, load)
    labels = None if labels_dir is None else str(labels_dir)
    set_dota_metadata(name, metadata, labels_dir=labels, images_dir=str(images_dir))


def set_dota_metadata(name: str, metadata: dict, **extra: str | None) -> None:
    """Fill the metadata of a data set for the DOTA evaluator.

    Args:
        name: of the data set.
        metadata: given by the user; may override ``evaluator_type``.
        extra: ``labels_dir``, ``images_dir``, ``source_dataset``.
    """
    MetadataCatalog.get(name).set(**{"evaluator_type": "dota", **metadata, **extra})


def class_names_of(metadata: dict) -> tuple[str, ...]:
    """Take the class names out of a metadata dict.

    Args:
        metadata: with ``thing_classes``.

    Returns:
        the names, in the order of their category ids.

    Raises:
        ValueError: if there are none, or they are no list of different names without blanks.
    """
    if "thing_classes" not in metadata:
        raise ValueError(f"metadata needs 'thing_classes', got only {sorted(metadata)}.")
    return tuple(_category_ids(metadata["thing_classes"]))


def _category_ids(class_names: Sequence[str]) -> dict[str, int]:
    """Class name -> category id, after a check that it is a list of different names."""
    if isinstance(class_names, str):
        raise ValueError(
            f"The class names must be a list, got the string {class_names!r}; a list of one class "
            f"is [{class_names!r}], a tuple ({class_names!r},) with its comma."
        )
    names = list(class_names)
    wrong = [name for name in names if not isinstance(name, str) or len(name.split()) != 1]
    if wrong or not names:
        raise ValueError(
            f"Class names must be non-empty strings without blanks, got {wrong or names}; DOTA "
            "writes 'small-vehicle', not 'small vehicle'."
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"Class names must differ; given more than once: {repeated}.")
    return {name: index for index, name in enumerate(names)}


def _check_policies(**given: str) -> None:
    for argument, value in given.items():
        if value not in _POLICIES[argument]:
            raise ValueError(f"{argument} must be one of {_POLICIES[argument]}, got {value!r}.")


def _read_sizes(paths: Iterable[Path], report: LabelReport) -> list[tuple[int, int] | None]:
    """(height, width) of each image, None and a problem where the header is broken."""

    def read(path: Path) -> tuple[int, int] | str:
        try:
            return read_image_size(path)
        except (ValueError, OSError) as error:
            return str(error)

    paths = list(paths)
    groups = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    # Threads hide the latency of network file systems, where data sets of 10 000 images live.
    with ThreadPoolExecutor(8) as pool:
        results = [size for group in pool.map(lambda g: [*map(read, g)], groups) for size in group]
    for path, result in zip(paths, results):
        if isinstance(result, str):
            report.add("unreadable_image", path, None, result)
    return [None if isinstance(result, str) else result for result in results]


def _select_known(
    labels: DotaLabels, categories: dict[str, int], policy: str, path: Path, report: LabelReport
) -> DotaLabels:
    """Leave out the objects of classes that are not in the list."""
    keep = np.array([name in categories for name in labels.names], dtype=bool)
    if policy != "ignore":
        for index in np.flatnonzero(~keep):
            message = f"class {labels.names[index]!r} is not in the class list"
            report.add("unknown_class", path, int(labels.lines[index]), message)
    return labels.select(keep)


def fill_annotations(records: list[dict]) -> None:
    """Turn triples into Detectron2's annotation dicts, in place.

    All polygons of the data set are fitted with boxes in a few large calls.

    Args:
        records: dataset dicts whose ``annotations`` are triples (polygon (4, 2) float64 pixels,
            category id, difficult).
    """
    polygons = [triple[0] for record in records for triple in record["annotations"]]
    boxes = []
    for start in range(0, len(polygons), _BATCH):
        corners = torch.from_numpy(np.stack(polygons[start : start + _BATCH]))
        boxes += corners_to_boxes(corners).tolist()
    rows = iter(boxes)
    for record in records:
        record["annotations"] = [
            {
                "bbox": next(rows),
                "bbox_mode": BoxMode.XYWHA_ABS,
                "category_id": category,
                "poly": polygon.reshape(-1).tolist(),
                "difficult": int(flag),
                "iscrowd": 0,
            }
            for polygon, category, flag in record["annotations"]
        ]


def _raise_by_policy(report: LabelReport, name: str, **policies: str) -> None:
    """Raise if a policy says so; all problems are collected first, so that one run shows them."""
    if policies["on_problem"] == "error":
        report.raise_if_any(name)
    kinds = {
        "unknown_class": ("unknown_class",),
        "out_of_image": ("outside_image", "crossing_border"),
        "missing_label": ("image_without_label",),
    }
    for policy, affected in kinds.items():
        if policies[policy] == "error":
            report.raise_if_any(name, affected)
