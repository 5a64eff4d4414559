"""DIOR-R as Detectron2 datasets: XML annotations, lists of the splits, two class orders.

The folders expected under ``$DETECTRON2_DATASETS`` are in ``README.md`` beside this file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rsd2.data.class_orders import class_order
from rsd2.data.formats.dior import read_dior_labels
from rsd2.data.formats.dota import find_labels
from rsd2.data.formats.label_report import LabelReport

from .dota import register_labels
from .polygon_labels import LabelPolicy, check_split, listed_images, read_polygon_records

DIOR_R_SPLITS = {
    "train": ("JPEGImages-trainval", ("train",)),
    "val": ("JPEGImages-trainval", ("val",)),
    "trainval": ("JPEGImages-trainval", ("train", "val")),
    "test": ("JPEGImages-test", ("test",)),
}
"""Split -> folder of its images, and the lists under ``ImageSets/Main`` that name them."""
_ANNOTATIONS = Path("Annotations") / "Oriented Bounding Boxes"


def load_dior_r(
    root: str | Path,
    split: str,
    *,
    order: str = "rsd2",
    report: LabelReport | None = None,
    **policies: Any,
) -> list[dict]:
    """Read a split of DIOR-R into Detectron2's dataset dicts.

    Everything that is wrong is counted and logged once with file and line; unusable objects are
    dropped. Class names are compared regardless of case.

    Args:
        root: folder that holds ``JPEGImages-trainval``, ``JPEGImages-test``,
            ``Annotations/Oriented Bounding Boxes`` and ``ImageSets/Main``.
        split: ``"train"``, ``"val"``, ``"trainval"`` or ``"test"``.
        order: order of the classes, a name that ``rsd2.data.class_orders.CLASS_ORDERS["dior_r"]``
            has: ``"rsd2"`` (alphabetical, MutDet's) or ``"ars_detr"``.
        report: report to fill, if given.
        policies: arguments of ``LabelPolicy``.

    Returns:
        as ``read_polygon_records``, in the order of the lists.

    Raises:
        FileNotFoundError: if a folder or list is missing, or no image of the list is there.
        ValueError: for an unknown split or order, or because a policy says ``"error"``.
    """
    check_split("DIOR-R", split, DIOR_R_SPLITS)
    classes, policy = class_order("dior_r", order), LabelPolicy(**policies)
    root, report = Path(root), LabelReport() if report is None else report
    folder, lists = DIOR_R_SPLITS[split]
    files = [root / "ImageSets" / "Main" / f"{name}.txt" for name in lists]
    images = listed_images(root / folder, files, report)
    annotations = root / _ANNOTATIONS
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"There is no folder {annotations}; DIOR-R's rotated annotations lie there, those of "
            "the older DIOR in 'Horizontal Bounding Boxes' do not fit."
        )

    return read_polygon_records(
        images,
        classes,
        labels=find_labels(annotations, images, report, extension=".xml", only_of_images=False),
        read=partial(read_dior_labels, class_names=classes),
        policy=policy,
        report=report,
        name=f"DIOR-R {split} ({annotations})",
    )


def register_dior_r(
    name: str,
    root: str | Path,
    split: str,
    *,
    order: str = "rsd2",
    metadata: dict | None = None,
    **policies: Any,
) -> None:
    """Register a split of DIOR-R; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        root: root folder as for ``load_dior_r``.
        split: split as for ``load_dior_r``.
        order: order of the classes as for ``load_dior_r``.
        metadata: further entries of ``MetadataCatalog``.
        policies: arguments as for ``load_dior_r``.

    Raises:
        ValueError: for an unknown split or order.
    """
    classes = class_order("dior_r", order)
    check_split("DIOR-R", split, DIOR_R_SPLITS)
    load = partial(load_dior_r, root, split, order=order, **policies)
    labels, images = Path(root) / _ANNOTATIONS, Path(root) / DIOR_R_SPLITS[split][0]
    register_labels(name, load, classes, labels, images, metadata)
