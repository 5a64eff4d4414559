"""OHD-SJTU-S and -L as Detectron2 datasets; the point of each object's head is kept.

The images are up to 16,000 pixels wide; ``register_virtual_tiles`` cuts them when they are loaded.
The folders expected under ``$DETECTRON2_DATASETS`` are in ``README.md`` beside this file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rsd2.data.class_orders import canonical_class_name, class_order
from rsd2.data.formats.dota import DotaLabels, find_images, find_labels, read_dota_labels
from rsd2.data.formats.label_report import LabelReport

from .dota import register_labels
from .polygon_labels import LabelPolicy, read_polygon_records


def load_ohd_sjtu(
    folder: str | Path,
    version: str,
    *,
    order: str = "rsd2",
    report: LabelReport | None = None,
    **policies: Any,
) -> list[dict]:
    """Read a split of OHD-SJTU into Detectron2's dataset dicts.

    A line of ``rotation_txt`` is ``x1 y1 x2 y2 x3 y3 x4 y4 head_x head_y class [difficult]``; the
    class is a name, or the number that the dataset gives it (S: ship 1, plane 2). Every problem is
    counted and logged once with file and line.

    Args:
        folder: folder of the split, with ``images`` and ``rotation_txt``.
        version: ``"S"`` (2 classes) or ``"L"`` (6 classes).
        order: order of the classes, a name that ``rsd2.data.class_orders.CLASS_ORDERS`` has for
            ``ohd_sjtu_s`` or ``ohd_sjtu_l``: ``"rsd2"`` (MutDet's) or ``"official"``.
        report: report to fill, if given.
        policies: arguments of ``LabelPolicy``.

    Returns:
        as ``read_polygon_records``, sorted by name; each annotation has ``head``, (x, y) in pixels.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: for an unknown version or order, or because a policy says ``"error"``.
    """
    dataset = _dataset(version)
    classes, policy = class_order(dataset, order), LabelPolicy(**policies)
    folder, report = Path(folder), LabelReport() if report is None else report
    labels = folder / "rotation_txt"
    images = find_images(folder / "images", report)
    return read_polygon_records(
        images,
        classes,
        labels=find_labels(labels, images, report),
        read=partial(_read_labels, numbers=class_order(dataset, "official")),
        policy=policy,
        report=report,
        name=str(labels),
    )


def register_ohd_sjtu(
    name: str,
    folder: str | Path,
    version: str,
    *,
    order: str = "rsd2",
    metadata: dict | None = None,
    **policies: Any,
) -> None:
    """Register a split of OHD-SJTU; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        folder: folder as for ``load_ohd_sjtu``.
        version: version as for ``load_ohd_sjtu``.
        order: order of the classes as for ``load_ohd_sjtu``.
        metadata: further entries of ``MetadataCatalog``.
        policies: arguments as for ``load_ohd_sjtu``.

    Raises:
        ValueError: for an unknown version or order.
    """
    classes = class_order(_dataset(version), order)
    load = partial(load_ohd_sjtu, folder, version, order=order, **policies)
    labels, images = Path(folder) / "rotation_txt", Path(folder) / "images"
    register_labels(name, load, classes, labels, images, metadata)


def _dataset(version: str) -> str:
    if version not in ("S", "L"):
        raise ValueError(f"OHD-SJTU has the versions 'S' and 'L', got {version!r}.")
    return f"ohd_sjtu_{version.lower()}"


def _read_labels(path: Path, report: LabelReport, numbers: tuple[str, ...]) -> DotaLabels:
    """Read the labels of one file and turn its class numbers and spellings into canonical names."""
    labels = read_dota_labels(path, report, with_heads=True)
    # The dataset numbers its classes from 1, in the order of its authors.
    by_number = {str(number): name for number, name in enumerate(numbers, start=1)}
    names = [by_number.get(raw, canonical_class_name(raw, numbers)) for raw in labels.names]
    return replace(labels, names=names)
