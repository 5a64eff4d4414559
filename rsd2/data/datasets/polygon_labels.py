"""Builds Detectron2's dataset dicts from images and label files with quadrilaterals of any format.

A format decides how a file is found and read. This module decides, for all formats alike, about
unknown classes, objects outside the image and missing files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import BoxMode

from rsd2.data.class_orders import canonical_class_name
from rsd2.data.file_names import NameIndex
from rsd2.data.formats.dota import DotaLabels, apply_border_policy, find_images
from rsd2.data.formats.label_images import read_sizes
from rsd2.data.formats.label_report import LabelReport, show_progress
from rsd2.data.formats.labelled_images import check_size
from rsd2.io.text import read_lines
from rsd2.structures import corners_to_boxes

_BATCH = 200_000
_UNREADABLE = (
    *("foreign_format", "class_number", "fields", "fields_with_head", "number"),
    *("missing_element", "unreadable_label", "xml"),
)
"""Problems that leave a label file without any object."""
_POLICIES = {
    "on_problem": ("report", "error"),
    "unknown_class": ("report", "ignore", "error"),
    "out_of_image": ("keep", "clip", "drop", "error", "ignore"),
    "missing_label": ("empty", "drop", "error"),
}


@dataclass(frozen=True)
class LabelPolicy:
    """Decisions about labels that cannot be used as they are.

    Attributes:
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

    Raises:
        ValueError: for an unknown policy.
    """

    on_problem: str = "report"
    unknown_class: str = "report"
    out_of_image: str = "keep"
    missing_label: str = "empty"
    border_tolerance: float = 1.0

    def __post_init__(self) -> None:
        for name, known in _POLICIES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")

    def raise_if_asked(self, report: LabelReport, name: str) -> None:
        """Raise if a policy demands it; all problems were collected before, so one run shows them.

        Args:
            report: report of the whole dataset.
            name: name of the dataset or its folder.

        Raises:
            ValueError: with the problems, file and line.
        """
        if self.on_problem == "error":
            report.raise_if_any(name)
        kinds = {
            "unknown_class": ("unknown_class",),
            "out_of_image": ("outside_image", "crossing_border"),
            "missing_label": ("image_without_label",),
        }
        for policy, affected in kinds.items():
            if getattr(self, policy) == "error":
                report.raise_if_any(name, affected)


def check_split(title: str, split: str, known: Collection[str]) -> None:
    """Check the name of a split.

    Args:
        title: name of the dataset, for the message.
        split: name of the split.
        known: names that the dataset has.

    Raises:
        ValueError: for another name.
    """
    if split not in known:
        raise ValueError(f"{title} has no split {split!r}; it has {', '.join(known)}.")


def listed_images(images_dir: Path, lists: Sequence[Path], report: LabelReport) -> dict[str, Path]:
    """Find the images of a split by the files that list them.

    Args:
        images_dir: folder of the images.
        lists: text files with the name of an image on each line, with or without extension.
        report: report that gets listed names without an image.

    Returns:
        name without extension -> file, in the order of the lists.

    Raises:
        FileNotFoundError: if the folder or a list is missing, or no listed image is there.
    """
    # Unlisted images belong to other splits, so they are not reported.
    found = find_images(images_dir, LabelReport())
    index = NameIndex(found, images_dir, with_extension=False)
    images: dict[str, Path] = {}
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"There is no list {path}; it names the images of the split.")
        for number, line in enumerate(map(str.strip, read_lines(path)), start=1):
            image_id = index.find(line)
            if image_id is not None:
                images[image_id] = found[image_id]
            elif line:
                message = f"no image {line!r} in {images_dir}"
                report.add("listed_without_image", path, number, message)

    if not images:
        stems, files = ", ".join(p.stem for p in lists), " and ".join(p.name for p in lists)
        raise FileNotFoundError(
            f"None of the images that {stems} of {lists[0].parent} name is in {images_dir}; "
            f"correct {files}. {report.summary()}"
        )

    report.images += len(images)
    return images


def read_polygon_records(
    images: Mapping[str, Path],
    class_names: Sequence[str],
    *,
    labels: Mapping[str, Path] | None,
    read: Callable[[Path, LabelReport], DotaLabels],
    policy: LabelPolicy,
    report: LabelReport,
    name: str,
) -> list[dict]:
    """Read the labels of images into Detectron2's dataset dicts.

    Everything that is wrong is counted and logged once with file and line; unusable objects are
    dropped. The sizes come from the image headers; no pixel is decoded.

    Args:
        images: id -> file, in the order of the result.
        class_names: category k is ``class_names[k]``.
        labels: id -> label file, for images that have one; None for a set without labels.
        read: reader of one label file, which adds its problems to the report.
        policy: what to do about problems.
        report: report to fill; it is logged at the end.
        name: name of the dataset or its folder, for messages.

    Returns:
        a dict for each image: ``file_name``, ``image_id``, ``height``, ``width``, and with labels
        ``annotations``: ``bbox`` (canonical cx, cy, w, h in pixels, angle in degrees),
        ``bbox_mode`` XYWHA_ABS, ``category_id``, ``poly`` (x1, y1, ... y4 as in the file),
        ``difficult`` (0, 1, 2), ``iscrowd`` (0), and ``head`` (x, y) where the format has it.

    Raises:
        ValueError: for a wrong class list, if a policy says ``"error"``, or if broken or foreign
            label files leave no object at all.
    """
    categories = category_ids(class_names)
    records = []
    sizes = read_sizes(images.values(), report)
    for (image_id, image), size in zip(show_progress(images.items(), "file"), sizes):
        path = None if labels is None else labels.get(image_id)
        is_missing = labels is not None and path is None
        if is_missing:
            fate = "dropped" if policy.missing_label == "drop" else "kept"
            message = f"no label file {image_id!r} among those of {name}"
            report.add("image_without_label", image, None, message, fate)

        # Dropped only now, so that a missing label is reported for a broken image, too.
        if size is None or (is_missing and policy.missing_label == "drop"):
            continue
        record = {
            "file_name": str(image),
            "image_id": image_id,
            "height": size[0],
            "width": size[1],
        }
        if labels is not None:
            objects = DotaLabels.empty()
            if path is not None:
                objects = read(path, report)
                check_size(objects, size, image.name, path, report)
                objects = apply_policies(objects, size, categories, policy, path, report)
            record["annotations"] = annotation_rows(objects, categories)
            report.objects += len(objects)

        records.append(record)

    # All boxes are fitted together: a call for each image would take most of the time.
    if labels is not None:
        fill_annotations(records)
    report.log(logging.getLogger(__name__), name)
    policy.raise_if_asked(report, name)
    # No object at all and unreadable files: the set would train a model of empty images.
    if not any(record.get("annotations") for record in records):
        report.raise_if_any(name, _UNREADABLE)
    return records


def apply_policies(
    objects: DotaLabels,
    size: tuple[int, int],
    categories: Mapping[str, int],
    policy: LabelPolicy,
    path: str | Path,
    report: LabelReport,
) -> DotaLabels:
    """Leave out, clip and report objects of one image as the policies say.

    Args:
        objects: of the image.
        size: (height, width) of the image in pixels.
        categories: class name -> category id.
        policy: for unknown classes and objects that leave the image.
        path: of the label file.
        report: gets what is wrong.

    Returns:
        the remaining objects.
    """
    objects = _select_known(objects, categories, policy.unknown_class, path, report)
    if policy.out_of_image == "ignore":
        return objects
    return apply_border_policy(
        objects, size, policy.out_of_image, path, report, policy.border_tolerance
    )


def category_ids(class_names: Sequence[str]) -> dict[str, int]:
    """Number the class names after checking them.

    Args:
        class_names: category k is ``class_names[k]``.

    Returns:
        class name -> category id.

    Raises:
        ValueError: if it is not a list of different names.
    """
    # A string is a sequence of letters, and would pass as so many classes.
    if isinstance(class_names, str):
        raise ValueError(
            f"The class names must be a list, got the string {class_names!r}; a list of one class "
            f"is [{class_names!r}], a tuple ({class_names!r},) with its comma."
        )

    names = list(class_names)
    # Label files separate words by single blanks, so no other name could match.
    wrong = [name for name in names if not isinstance(name, str) or name != " ".join(name.split())]
    if wrong or not names or "" in names:
        raise ValueError(
            "Class names must be non-empty strings with single blanks between their words and "
            f"none around them, got {wrong or names}."
        )

    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"Class names must differ; given more than once: {repeated}.")
    return {name: index for index, name in enumerate(names)}


def class_names_of(metadata: dict) -> tuple[str, ...]:
    """Read the class names from a metadata dict.

    Args:
        metadata: metadata with ``thing_classes``.

    Returns:
        the names, in the order of their category ids.

    Raises:
        ValueError: if there are none, or if they are not a list of different names.
    """
    if "thing_classes" not in metadata:
        raise ValueError(f"metadata needs 'thing_classes', got only {sorted(metadata)}.")
    return tuple(category_ids(metadata["thing_classes"]))


def fill_annotations(records: list[dict]) -> None:
    """Turn tuples into Detectron2's annotation dicts, in place.

    All polygons of the dataset are fitted with boxes in a few large calls, in batches that bound
    the memory.

    Args:
        records: dataset dicts whose ``annotations`` are tuples (polygon (4, 2) float64 pixels,
            category id, difficult, dict of what else the annotation has).
    """
    polygons = [row[0] for record in records for row in record["annotations"]]
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
                **more,
            }
            for polygon, category, flag, more in record["annotations"]
        ]


def annotation_rows(labels: DotaLabels, categories: Mapping[str, int]) -> list[tuple]:
    """Return the tuples that `fill_annotations` takes.

    Args:
        labels: of one image, all of known classes.
        categories: class name -> category id.

    Returns:
        a tuple for each object.
    """
    more: list[dict] = [{}] * len(labels)
    if labels.heads is not None:
        # NaN, the only number that differs from itself, stands for a head that nobody labelled.
        more = [{"head": head} if head[0] == head[0] else {} for head in labels.heads.tolist()]
    numbers = [categories[name] for name in labels.names]
    return list(zip(labels.polygons, numbers, labels.difficult, more))


def _select_known(
    labels: DotaLabels,
    categories: Mapping[str, int],
    policy: str,
    path: str | Path,
    report: LabelReport,
) -> DotaLabels:
    """Drop the objects of classes that are not in the list."""
    keep = np.array([name in categories for name in labels.names], dtype=bool)
    similar = partial(canonical_class_name, known=categories)
    if policy != "ignore":
        for index in np.flatnonzero(~keep).tolist():
            found = labels.names[index]
            message, meant = f"class {found!r} is not in the class list", similar(found)
            # Another spelling of a known class is the usual reason, and easy to correct.
            if meant != found:
                message += f", which has {meant!r}"
            report.add("unknown_class", path, labels.line(index), message)
    return labels.select(keep)
