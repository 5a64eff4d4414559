"""HRSC2016 as Detectron2 datasets: ships as rotated boxes with the point of the bow.

The folders expected under ``$DETECTRON2_DATASETS`` are in ``README.md`` beside this file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rsd2.data.class_orders import class_order
from rsd2.data.formats.dota import DotaLabels, find_labels
from rsd2.data.formats.hrsc import Hrsc
from rsd2.data.formats.label_report import LabelReport

from .dota import register_labels
from .polygon_labels import LabelPolicy, check_split, listed_images, read_polygon_records

HRSC2016_SPLITS = ("train", "val", "trainval", "test")
_IMAGES, _LABELS = Path("FullDataSet") / "AllImages", Path("FullDataSet") / "Annotations"


def load_hrsc2016(
    root: str | Path,
    split: str,
    *,
    types: bool = False,
    report: LabelReport | None = None,
    **policies: Any,
) -> list[dict]:
    """Read a split of HRSC2016 into Detectron2's dataset dicts.

    Every problem is counted and logged once with file and line.

    Args:
        root: folder with ``FullDataSet/AllImages``, ``FullDataSet/Annotations``, ``ImageSets``.
        split: ``"train"``, ``"val"``, ``"trainval"`` or ``"test"``.
        types: whether the classes are the 31 types of ships and not the only class ``ship``, to
            which most published numbers refer.
        report: report to fill, if given.
        policies: arguments of ``LabelPolicy``.

    Returns:
        as ``read_polygon_records``, in the order of the list; an annotation whose bow is labelled
        has ``head``, (x, y) in pixels.

    Raises:
        FileNotFoundError: if a folder or list is missing, or no image of the list is there.
        ValueError: for an unknown split, or because a policy says ``"error"``.
    """
    check_split("HRSC2016", split, HRSC2016_SPLITS)
    classes, policy = _classes(types), LabelPolicy(**policies)
    root, report = Path(root), LabelReport() if report is None else report
    images = listed_images(root / _IMAGES, [root / "ImageSets" / f"{split}.txt"], report)
    return read_polygon_records(
        images,
        classes,
        labels=find_labels(root / _LABELS, images, report, extension=".xml", only_of_images=False),
        read=partial(_read_labels, types=types),
        policy=policy,
        report=report,
        name=f"HRSC2016 {split} ({root / _LABELS})",
    )


def register_hrsc2016(
    name: str,
    root: str | Path,
    split: str,
    *,
    types: bool = False,
    metadata: dict | None = None,
    **policies: Any,
) -> None:
    """Register a split of HRSC2016; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        root: root folder as for ``load_hrsc2016``.
        split: split as for ``load_hrsc2016``.
        types: classes as for ``load_hrsc2016``.
        metadata: further entries of ``MetadataCatalog``.
        policies: arguments as for ``load_hrsc2016``.

    Raises:
        ValueError: for an unknown split.
    """
    check_split("HRSC2016", split, HRSC2016_SPLITS)
    load = partial(load_hrsc2016, root, split, types=types, **policies)
    labels, images = Path(root) / _LABELS, Path(root) / _IMAGES
    register_labels(name, load, _classes(types), labels, images, metadata)


def _classes(types: bool) -> tuple[str, ...]:
    return class_order("hrsc2016_types" if types else "hrsc2016")


def _read_labels(path: Path, report: LabelReport, types: bool) -> DotaLabels:
    labels = Hrsc().read_objects(path, _classes(True), report)
    # Every type is a ship, also one that only the user's own table of types has.
    return labels if types else replace(labels, names=["ship"] * len(labels))
