"""DOTA folders as Detectron2 datasets.

The format itself is in ``rsd2.data.formats.dota``, the folders expected under
``$DETECTRON2_DATASETS`` in ``README.md`` beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.formats.dota import (
    check_dota_class_names,
    find_images,
    find_labels,
    read_dota_labels,
)
from rsd2.data.formats.label_report import LabelReport
from rsd2.io.image_io import IMAGE_EXTENSIONS

from .polygon_labels import LabelPolicy, category_ids, class_names_of, read_polygon_records


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

    Everything that is wrong is counted and logged once with file and line; unusable objects are
    dropped. The sizes come from the image headers; no pixel is decoded.

    Args:
        labels_dir: folder of text files, or None for images without labels.
        images_dir: folder of images.
        class_names: category k is ``class_names[k]``.
        image_extensions: extensions in lower case, with dot.
        on_problem: ``"report"``, or ``"error"`` to raise if anything at all is wrong.
        unknown_class: what to do with names that are not in the list: drop them and ``"report"``
            them, ``"ignore"`` them silently (for a chosen subset of classes), or raise an
            ``"error"``.
        out_of_image: ``"keep"``, ``"clip"``, ``"drop"`` or ``"error"`` for objects outside the
            image or crossing its border (see ``apply_border_policy``), all of them reported;
            ``"ignore"`` keeps them unreported, for tiles that may cut their objects.
        missing_label: an image without label file is taken as ``"empty"`` (it shows no object),
            or ``"drop"`` it, or raise an ``"error"``; reported in any case.
        border_tolerance: pixels by which a vertex may lie outside.
        report: report to fill, if given.

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
    policy = LabelPolicy(on_problem, unknown_class, out_of_image, missing_label, border_tolerance)
    # Wrong arguments are found before a folder of thousands of files is listed.
    check_dota_class_names(category_ids(class_names))
    report = LabelReport() if report is None else report
    images = find_images(images_dir, report, image_extensions)
    return read_polygon_records(
        images,
        class_names,
        labels=None if labels_dir is None else find_labels(labels_dir, images, report),
        read=partial(read_dota_labels, class_names=class_names),
        policy=policy,
        report=report,
        name=str(images_dir if labels_dir is None else labels_dir),
    )


def register_dota_instances(
    name: str,
    metadata: dict,
    labels_dir: str | Path | None,
    images_dir: str | Path,
    **options,
) -> None:
    """Register a DOTA folder; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        metadata: ``thing_classes``, a list of class names, and further entries of
            ``MetadataCatalog``.
        labels_dir: folder of text files, or None.
        images_dir: folder of images.
        options: further arguments of ``load_dota_instances``.

    Raises:
        ValueError: if ``thing_classes`` is missing or is no list of names.
    """
    # The class list is checked at registration, where its author sees the error.
    classes = check_dota_class_names(class_names_of(metadata))
    load = partial(load_dota_instances, labels_dir, images_dir, classes, **options)
    DatasetCatalog.register(name, load)
    labels = None if labels_dir is None else str(labels_dir)
    set_dota_metadata(name, metadata, labels_dir=labels, images_dir=str(images_dir))


def set_dota_metadata(name: str, metadata: dict, **extra: str | None) -> None:
    """Fill the metadata of a dataset for the DOTA evaluator.

    Args:
        name: name of the dataset.
        metadata: entries from the user; may override ``evaluator_type``.
        extra: ``labels_dir``, ``images_dir``, ``source_dataset``.
    """
    MetadataCatalog.get(name).set(**{"evaluator_type": "dota", **metadata, **extra})


def register_labels(
    name: str,
    load: Callable[[], list[dict]],
    classes: Sequence[str],
    labels_dir: str | Path,
    images_dir: str | Path,
    metadata: dict | None = None,
) -> None:
    """Register a dataset of oriented boxes; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        load: function that reads the dataset dicts.
        classes: category k is ``classes[k]``.
        labels_dir: folder or file of the labels.
        images_dir: folder of the images.
        metadata: further entries of ``MetadataCatalog``, which override the classes.
    """
    DatasetCatalog.register(name, load)
    metadata = {"thing_classes": list(classes), **(metadata or {})}
    set_dota_metadata(name, metadata, labels_dir=str(labels_dir), images_dir=str(images_dir))
