"""COCO's JSON for oriented objects: polygons, masks, five numbers, or CVAT's rotation of a box.

The reader takes the first of these that an annotation has: a ``bbox`` of five numbers (centre,
sides, angle), a ``segmentation``, a ``bbox`` that ``attributes.rotation`` turns about its centre
(degrees, clockwise), an upright ``bbox``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .coco import load_lists, parse_categories, parse_images
from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    ObjectRow,
    add_entry_problem,
    format_heading,
    parse_coordinates,
    parse_heading,
    parse_score,
    parse_sides,
)
from .label_format import FileForAll, LabelledImage, LabelledObject
from .label_parsing import to_json
from .label_report import LabelReport, show_progress
from .label_sample import Sample
from .masks import coco_mask_corners
from .rectangles import fit_rectangle, polygon_corners, rectangle_corners, upright_corners
from .values import parse_boolean, parse_difficulty, parse_id

ANGLE_CONVENTIONS = {
    "degrees-ccw": -math.pi / 180,
    "degrees-cw": math.pi / 180,
    "radians-ccw": -1.0,
    "radians-cw": 1.0,
}
"""Unit and sense (on screen) of the fifth number -> factor that turns it into clockwise radians.
Detectron2 uses ``degrees-ccw``, OpenMMLab ``radians-cw``."""

_KIND = "COCO JSON"
_ALL = frozenset({"difficult", "cut", "score", "heading", "quadrilateral"})
_FIRST_ANNOTATIONS = 1000  # number of annotations that decide on the variant


class CocoPolygons(FileForAll):
    """Polygons and masks; four points stay as they are, others become their smallest rectangle."""

    name = "coco"
    title = "COCO JSON"
    kinds = (_KIND,)
    holds = _ALL

    def __init__(self, convention: str = "degrees-ccw") -> None:
        """Choose the meaning of a box's fifth number.

        Args:
            convention: a key of ``ANGLE_CONVENTIONS``.

        Raises:
            ValueError: for an unknown convention.
        """
        if convention not in ANGLE_CONVENTIONS:
            known = ", ".join(ANGLE_CONVENTIONS)
            raise ValueError(f"the angle convention must be one of {known}, got {convention!r}")
        self._factor = ANGLE_CONVENTIONS[convention]

    def recognizes(self, sample: Sample) -> bool:
        """Tell whether a file is of this variant, see `LabelFormat.recognizes`."""
        return sample.kind == _KIND and _variant(sample.content) == self.name

    def class_names(self, path: str | Path) -> tuple[str, ...]:
        """Return the categories in their order, see `LabelFormat.class_names`."""
        path = self.find_file(path)

        names = parse_categories(load_lists(path)["categories"], path).values()
        return tuple(dict.fromkeys(" ".join(name.split()) for name in names))

    def parse(self, path: Path, classes: tuple[str, ...], report: LabelReport) -> list[LabelPage]:
        """Parse a file, see `FileForAll.parse`."""
        content = load_lists(path)
        categories = parse_categories(content["categories"], path)
        images = parse_images(content["images"], path, report)

        pages = {
            number: LabelPage([], image.file_name, (image.height, image.width))
            for number, image in images.items()
        }
        # CVAT sets iscrowd of every mask, which says how it is stored and not that it is a crowd.
        has_crowds = any(
            _get(entry, "iscrowd") in (0, False, "0", None)
            for entry in content["annotations"]
            if isinstance(_get(entry, "segmentation"), dict)
        )

        for index, entry in enumerate(show_progress(content["annotations"], "object")):
            where = f"annotations[{index}]"
            try:
                number, category = parse_id(entry["image_id"]), parse_id(entry["category_id"])
                if number not in pages:
                    raise EntryError("unknown_image", f"it belongs to image id {number!r:.40}")
                if category not in categories:
                    raise EntryError("unknown_category", f"category id {category!r:.40}")

                row = _parse_annotation(entry, categories[category], self._factor)

                is_mask = isinstance(entry.get("segmentation"), dict)
                if parse_boolean(entry.get("iscrowd")) and (has_crowds or not is_mask):
                    row = row._replace(difficult=max(row.difficult, 1))
                pages[number].rows.append(row)
            except ENTRY_ERRORS as error:
                add_entry_problem(report, path, None, where, error)
        return list(pages.values())

    def format_file(self, images: Sequence[LabelledImage], classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FileForAll.format_file`."""
        numbers = {name: number for number, name in enumerate(classes, start=1)}
        annotations: list[dict[str, Any]] = []
        for number, image in enumerate(images, start=1):
            for one in image.objects:
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[one.name],
                    "iscrowd": 0,
                    "area": _area(one.polygon),
                    **self._shape(one),
                }
                _add_extra(annotation, one)
                annotations.append(annotation)

        content = {
            "images": [
                {"id": k, "file_name": i.file_name, "width": i.width, "height": i.height}
                for k, i in enumerate(images, start=1)
            ],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        }
        return to_json(content)

    def _shape(self, one: LabelledObject) -> dict[str, Any]:
        """Return the keys of an annotation that state where its object is."""
        (x0, y0), (x1, y1) = one.polygon.min(axis=0).tolist(), one.polygon.max(axis=0).tolist()
        polygon = one.polygon.reshape(-1).tolist()
        return {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [polygon]}


class CvatCoco(CocoPolygons):
    """CVAT's export: unrotated ``bbox`` with ``attributes.rotation``, else polygons and masks."""

    name = "cvat-coco"
    title = "CVAT's COCO JSON"

    def _shape(self, one: LabelledObject) -> dict[str, Any]:
        (cx, cy, width, height, angle), is_rectangle = fit_rectangle(one.polygon)
        if not is_rectangle:
            return super()._shape(one)
        return {
            "bbox": [cx - width / 2, cy - height / 2, width, height],
            "segmentation": [],
            "attributes": {"rotation": math.degrees(angle) % 360},
        }


class CocoRotated(CocoPolygons):
    """Boxes of five numbers: centre, width, height, and the angle in the chosen convention."""

    name = "coco-rotated"
    title = "COCO JSON of rotated boxes"
    holds = _ALL - {"quadrilateral"}

    def _shape(self, one: LabelledObject) -> dict[str, Any]:
        *sides, angle = fit_rectangle(one.polygon)[0]
        return {"bbox": [*sides, angle / self._factor]}


def _variant(content: Any) -> str:
    """Return the name of the format of a file, by the keys of its first annotations."""
    entries = content["annotations"]
    first = list(islice(entries, _FIRST_ANNOTATIONS)) if isinstance(entries, list) else []
    boxes = [box for box in (_get(one, "bbox") for one in first) if isinstance(box, list)]
    if any(len(box) == 5 for box in boxes):
        return CocoRotated.name

    attributes = [_get(one, "attributes") for one in first]
    has_rotation = any(isinstance(one, dict) and "rotation" in one for one in attributes)
    return CvatCoco.name if has_rotation else CocoPolygons.name


def _parse_annotation(entry: dict[str, Any], name: str, factor: float) -> ObjectRow:
    attributes = entry.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    corners = _corners(entry, attributes, factor)
    # Tools that have no key of their own for score and flag keep them in "attributes".
    score = parse_score(entry.get("score", attributes.get("score")))
    flag = parse_difficulty(entry.get("difficult", attributes.get("difficult")))
    return ObjectRow(
        corners, " ".join(name.split()), flag, score, parse_heading(attributes.get("heading"))
    )


def _corners(entry: dict[str, Any], attributes: dict[str, Any], factor: float) -> list[float]:
    bbox, segmentation = entry.get("bbox"), entry.get("segmentation")
    if isinstance(bbox, list) and len(bbox) == 5:
        cx, cy, width, height, angle = parse_coordinates(bbox)
        width, height = parse_sides(width, height)
        return rectangle_corners(cx, cy, width, height, angle * factor)

    upright = None
    if isinstance(bbox, list) and len(bbox) == 4:
        x, y, width, height = parse_coordinates(bbox)
        upright = upright_corners(x, y, width, height)
    # A mask or outline is exact; the box beside it is only its bounding box.
    if isinstance(segmentation, dict):
        return coco_mask_corners(segmentation)

    if segmentation:
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        outlines = [parse_coordinates(part) for part in parts]
        largest = outlines[0]
        # Parts of an occluded object: one quadrilateral can follow the largest part alone.
        if len(outlines) > 1:
            largest = max(outlines, key=lambda part: _area(np.reshape(part, (-1, 2))))
        corners = polygon_corners(largest)
        # Some exports give the outline of the unturned box; the rotation beside it says more.
        if not attributes.get("rotation") or upright is None or set(corners) != set(upright):
            return corners

    if upright is None:
        raise EntryError("coco_annotation", f"bbox {bbox!r:.80} and no segmentation")
    width, height = parse_sides(width, height)
    (degrees,) = parse_coordinates([attributes.get("rotation") or 0.0])
    return rectangle_corners(x + width / 2, y + height / 2, width, height, math.radians(degrees))


def _add_extra(annotation: dict[str, Any], one: LabelledObject) -> None:
    """Add what COCO has no key for, under keys that its readers ignore."""
    if one.score is not None:
        annotation["score"] = float(one.score)
    if one.difficult:
        annotation["difficult"] = one.difficult
    if one.heading is not None:
        annotation.setdefault("attributes", {})["heading"] = format_heading(one.heading)


def _area(points: np.ndarray) -> float:
    """Return the area of a polygon (N, 2) in square pixels, by the shoelace formula."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None
