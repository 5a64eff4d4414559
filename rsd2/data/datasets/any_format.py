"""Labels of any annotation tool as Detectron2 datasets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rsd2.data.formats.label_format import LabelFormat, to_labels
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import LABEL_FORMATS, find_format

from .dota import register_labels
from .polygon_labels import (
    LabelPolicy,
    annotation_rows,
    apply_policies,
    category_ids,
    fill_annotations,
)


def load_dataset(
    path: str | Path,
    images: str | Path,
    classes: Sequence[str],
    *,
    format: str | LabelFormat = "auto",
    report: LabelReport | None = None,
    **policies: Any,
) -> list[dict]:
    """Read labels of any annotation tool into Detectron2's dataset dicts.

    The reader counts everything that is wrong and logs it once with file and place. It leaves out
    what cannot be used.

    Args:
        path: a label file or a folder of them.
        images: folder of the images, searched with all folders in it.
        classes: names of the categories; category k is ``classes[k]``. They also name numbered
            classes if the labels bring no list of their own.
        format: a key of ``rsd2.data.formats.registry.LABEL_FORMATS``, a format object built with
            other arguments, or ``"auto"``, which detects the format from the content.
        report: report to fill, if given.
        policies: fields of ``LabelPolicy``.

    Returns:
        a dict for each image as ``read_polygon_records`` makes them, sorted by name; ``image_id``
        is the name of the image below its folder, without extension.

    Raises:
        FileNotFoundError: if labels or images are missing.
        ValueError: if the format is not recognized, the labels cannot be used, or a policy says
            ``"error"``.
    """
    policy, categories = LabelPolicy(**policies), category_ids(classes)
    report = LabelReport() if report is None else report
    if isinstance(format, str):
        format = find_format(format, path)

    found = format.read(path, images, classes=list(categories), report=report)
    report.objects = 0  # counted again below, without objects of unwanted classes

    records = []
    for image in found:
        # An image without label file may be a negative or simply not labelled yet.
        if not image.label_file and policy.missing_label == "drop":
            continue

        size = image.height, image.width
        objects = to_labels(image)
        objects = apply_policies(objects, size, categories, policy, image.label_file, report)
        report.objects += len(objects)

        record = {
            "file_name": str(Path(images) / image.file_name),
            "image_id": str(PurePosixPath(image.file_name).with_suffix("")),
            "height": image.height,
            "width": image.width,
            "annotations": annotation_rows(objects, categories),
        }
        records.append(record)

    fill_annotations(records)
    report.log(logging.getLogger(__name__), str(path))
    # After the log, so that the user sees all problems and not only the one that the error names.
    policy.raise_if_asked(report, str(path))
    return records


def register_dataset(
    name: str,
    path: str | Path,
    images: str | Path,
    format: str | LabelFormat = "auto",
    *,
    classes: Sequence[str],
    metadata: dict | None = None,
    **policies: Any,
) -> None:
    """Register labels of any annotation tool, which ``DatasetCatalog.get(name)`` reads.

    Args:
        name: name of the dataset; a process can register each name once.
        path: a label file or a folder of them.
        images: folder of the images.
        format: format of the labels, see ``load_dataset``.
        classes: names of the categories, see ``load_dataset``.
        metadata: further entries of ``MetadataCatalog``.
        policies: fields of ``LabelPolicy``.

    Raises:
        ValueError: for an unknown format or policy, or an invalid class list.
    """
    # Wrong arguments stop here, not minutes later when the training asks for the dataset.
    if isinstance(format, str) and format not in ("auto", *LABEL_FORMATS):
        find_format(format, path)  # raises the error that lists the known formats
    LabelPolicy(**policies)

    load = partial(load_dataset, path, images, tuple(classes), format=format, **policies)
    register_labels(name, load, tuple(category_ids(classes)), path, images, metadata)
