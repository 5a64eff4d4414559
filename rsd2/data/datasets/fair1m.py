"""FAIR1M as Detectron2 datasets: 37 fine classes of airplanes, ships, vehicles, courts and roads.

The images are up to 10,000 pixels wide; ``register_virtual_tiles`` cuts them when they are loaded.
The folders expected under ``$DETECTRON2_DATASETS`` are in ``README.md`` beside this file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rsd2.data.class_orders import FAIR1M_GROUPS, class_order
from rsd2.data.formats.dota import DotaLabels, find_images, find_labels
from rsd2.data.formats.fair1m import Fair1m
from rsd2.data.formats.label_report import LabelReport

from .dota import register_labels
from .polygon_labels import LabelPolicy, check_split, read_polygon_records

FAIR1M_SPLITS = {
    "train": (Path("train") / "part1", Path("train") / "part2"),
    "val": (Path("validation"),),
    "test": (Path("test"),),
}
"""Split -> folders that hold ``images`` and ``labelXml``; the labels of the test are secret."""

_GROUP_OF = {name: group for group, names in FAIR1M_GROUPS.items() for name in names}


def load_fair1m(
    root: str | Path,
    split: str,
    *,
    coarse: bool = False,
    report: LabelReport | None = None,
    **policies: Any,
) -> list[dict]:
    """Read a split of FAIR1M into Detectron2's dataset dicts.

    Every problem is counted and logged once with file and line.

    Args:
        root: folder with ``train/part1``, ``train/part2``, ``validation`` and ``test``.
        split: ``"train"``, ``"val"`` or ``"test"``, which has no labels.
        coarse: whether the classes are the five groups and not the 37 fine classes.
        report: report to fill, if given.
        policies: arguments of ``LabelPolicy``.

    Returns:
        as ``read_polygon_records``, sorted by part and name.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: for an unknown split, or because a policy says ``"error"``.
    """
    check_split("FAIR1M", split, FAIR1M_SPLITS)
    policy = LabelPolicy(**policies)
    root, report = Path(root), LabelReport() if report is None else report

    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for part in FAIR1M_SPLITS[split]:
        found = find_images(root / part / "images", report)
        # The evaluation knows images by their names, so two parts must not share one.
        for name in found.keys() & images.keys():
            message = f"{images[name]} of the same name is used instead"
            report.add("duplicate_image", found.pop(name), None, message)
            report.images -= 1

        images |= found
        if split != "test":
            labels |= find_labels(root / part / "labelXml", found, report, extension=".xml")

    return read_polygon_records(
        images,
        _classes(coarse),
        labels=None if split == "test" else labels,
        read=partial(_read_labels, coarse=coarse),
        policy=policy,
        report=report,
        name=f"FAIR1M {split} ({root})",
    )


def register_fair1m(
    name: str,
    root: str | Path,
    split: str,
    *,
    coarse: bool = False,
    metadata: dict | None = None,
    **policies: Any,
) -> None:
    """Register a split of FAIR1M; nothing is read before ``DatasetCatalog.get(name)``.

    Args:
        name: name of the dataset; a name can be registered once per process.
        root: root folder as for ``load_fair1m``.
        split: split as for ``load_fair1m``.
        coarse: classes as for ``load_fair1m``.
        metadata: further entries of ``MetadataCatalog``.
        policies: arguments as for ``load_fair1m``.

    Raises:
        ValueError: for an unknown split.
    """
    check_split("FAIR1M", split, FAIR1M_SPLITS)
    load = partial(load_fair1m, root, split, coarse=coarse, **policies)
    # The folder above the parts, because a split may have several.
    register_labels(name, load, _classes(coarse), root, root, metadata)


def _classes(coarse: bool) -> tuple[str, ...]:
    return class_order("fair1m_coarse" if coarse else "fair1m")


def _read_labels(path: Path, report: LabelReport, coarse: bool) -> DotaLabels:
    labels = Fair1m().read_objects(path, _classes(False), report)
    # Unknown names stay as they are, so that the report can show them.
    names = [_GROUP_OF.get(name, name) for name in labels.names]
    return replace(labels, names=names) if coarse else labels
