"""SODA-A as Detectron2 datasets: small objects in large images, and regions to be ignored.

The images are up to 5,000 pixels wide; ``register_virtual_tiles`` cuts them when they are loaded.
The folders expected under ``$DETECTRON2_DATASETS`` are in ``README.md`` beside this file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.data.class_orders import class_order
from rsd2.data.formats.dota import DotaLabels, find_images, find_labels
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.soda import SodaA

from .dota import register_labels
from .polygon_labels import LabelPolicy, check_split, read_polygon_records

SODA_A_SPLITS = ("train", "val", "test")
IGNORED = "ignore"
"""Category of the regions in which nobody labelled the single objects."""


def load_soda_a(
    root: str | Path, split: str, *, report: LabelReport | None = None, **policies: Any
) -> list[dict]:
    """Read a split of SODA-A into Detectron2's dataset dicts.

    Regions to be ignored are no objects, neither in training nor in the official evaluation, and
    come as an entry of their own. The released evaluation also leaves out objects of more than four
    points; here their smallest rectangle counts. Every problem is counted and logged once.

    Args:
        root: folder with ``train``, ``val`` and ``test``, each with ``Images`` and ``Annotations``,
            with or without the regions.
        split: ``"train"``, ``"val"`` or ``"test"``.
        report: report to fill, if given.
        policies: arguments of ``LabelPolicy``.

    Returns:
        as ``read_polygon_records``, sorted by name, each with ``ignore_regions``: a list of x1, y1,
        ... y4 in pixels of the whole image.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: for an unknown split, or because a policy says ``"error"``.
    """
    check_split("SODA-A", split, SODA_A_SPLITS)
    policy, report = LabelPolicy(**policies), LabelReport() if report is None else report
    folder, regions = Path(root) / split, {}

    def read(path: Path, report: LabelReport) -> DotaLabels:
        labels = SodaA().read_objects(path, (*class_order("soda_a"), IGNORED), report)
        is_object = np.array([name != IGNORED for name in labels.names], dtype=bool)
        regions[path] = labels.polygons[~is_object].reshape(-1, 8).tolist()
        return labels.select(is_object)

    images = find_images(folder / "Images", report)
    labels = find_labels(folder / "Annotations", images, report, extension=".json")
    records = read_polygon_records(
        images,
        class_order("soda_a"),
        labels=labels,
        read=read,
        policy=policy,
        report=report,
        name=f"SODA-A {split} ({folder})",
    )

    for record in records:
        path = labels.get(record["image_id"])
        record["ignore_regions"] = [] if path is None else regions[path]
    return records


def register_soda_a(
    name: str, root: str | Path, split: str, *, metadata: dict | None = None, **policies: Any
) -> None:
    """Register a split of SODA-A; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        root: root folder as for ``load_soda_a``.
        split: split as for ``load_soda_a``.
        metadata: further entries of ``MetadataCatalog``.
        policies: arguments as for ``load_soda_a``.

    Raises:
        ValueError: for an unknown split.
    """
    check_split("SODA-A", split, SODA_A_SPLITS)
    load, folder = partial(load_soda_a, root, split, **policies), Path(root) / split
    labels, images = folder / "Annotations", folder / "Images"
    register_labels(name, load, class_order("soda_a"), labels, images, metadata)
