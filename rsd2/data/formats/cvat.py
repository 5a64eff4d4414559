"""CVAT's XML for images, version 1.1: boxes with an angle in degrees, clockwise, and polygons.

A ``<box>`` states its sides before it is turned about its centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    ObjectRow,
    add_entry_problem,
    clean_name,
    format_heading,
    parse_coordinates,
    parse_heading,
    parse_score,
    parse_sides,
)
from .label_format import FileForAll, LabelledImage, LabelledObject
from .label_parsing import add_element, open_xml, stated_size, to_xml
from .label_report import LabelReport, show_progress
from .masks import mask_corners
from .rectangles import fit_rectangle, polygon_corners, rectangle_corners
from .values import parse_difficulty, parse_whole, shortest_decimal
from .xml_labels import line_of

ATTRIBUTES = ("difficult", "score", "heading")
"""Attributes for facts that CVAT has no element for; ``heading`` is ``x,y`` in pixels."""

_IGNORED = {"tag"}  # elements that describe the whole image


class CvatXml(FileForAll):
    """``<image>`` with ``<box ... rotation>``, ``<polygon points>`` and ``<mask rle>``."""

    name = "cvat"
    title = "CVAT XML"
    kinds = ("CVAT XML",)
    holds = frozenset({"difficult", "cut", "score", "heading", "quadrilateral"})

    def class_names(self, path: str | Path) -> tuple[str, ...]:
        """Return the labels of the task, see `LabelFormat.class_names`."""
        path = self.find_file(path)
        root = open_xml(path, self.kinds, LabelReport(), ()) if path.is_file() else None

        labels = [] if root is None else root.iterfind("meta//labels/label/name")
        names = (" ".join((label.text or "").split()) for label in labels)
        # A label may be listed twice, once per task of a project; dict keeps the first and the
        # order.
        return tuple(dict.fromkeys(name for name in names if name))

    def parse(self, path: Path, classes: tuple[str, ...], report: LabelReport) -> list[LabelPage]:
        """Parse a file, see `FileForAll.parse`."""
        root = open_xml(path, self.kinds, report)
        if root is None:
            return []

        # Boxes of a track name numbers of frames and no image files.
        for track in root.iterfind("track"):
            message = "a track of a video: export the task as 'CVAT for images'"
            report.add("label_shape", path, line_of(track), message)

        pages = []
        for image in show_progress(root.findall("image"), "image"):
            name = image.get("name", "")
            if not name.strip():
                report.add("label_entry", path, line_of(image), "the image has no name")
                continue

            size = stated_size(image.get("height"), image.get("width"))
            page = LabelPage([], name, size, line_of(image))
            for element in image:
                if element.tag in _IGNORED:
                    continue
                line = line_of(element)
                try:
                    page.rows.append(_parse_shape(element, line))
                except ENTRY_ERRORS as error:
                    add_entry_problem(report, path, line, f"{element.tag} of {name}", error)
            pages.append(page)

        return pages

    def format_file(self, images: Sequence[LabelledImage], classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FileForAll.format_file`."""
        root = ElementTree.Element("annotations")
        add_element(root, "version", "1.1")
        labels = add_element(add_element(add_element(root, "meta"), "task"), "labels")
        for name in classes:
            # The attributes that the shapes below carry, declared as CVAT's own exports do.
            label = add_element(labels, "label")
            add_element(label, "name", name)
            attributes = add_element(label, "attributes")
            for attribute in ATTRIBUTES:
                element = add_element(attributes, "attribute")
                add_element(element, "name", attribute)
                add_element(element, "mutable", "False")
                add_element(element, "input_type", "text")

        for number, image in enumerate(images):
            sides = {"width": str(image.width), "height": str(image.height)}
            element = add_element(root, "image", id=str(number), name=image.file_name, **sides)
            for one in image.objects:
                _add_shape(element, one)
        return to_xml(root)


def _parse_shape(element: ElementTree.Element, line: int) -> ObjectRow:
    name = clean_name(element.get("label", ""))

    if element.tag == "box":
        corners = _parse_box(element)
    elif element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.attrib["points"].split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise EntryError("label_entry", "points are not 'x,y;x,y;...'")
        corners = polygon_corners(parse_coordinates(value for pair in pairs for value in pair))
    elif element.tag == "mask":
        corners = _parse_mask(element)
    else:
        raise EntryError("label_shape", "it is not a box, polygon or mask")

    texts = {one.get("name"): (one.text or "").strip() for one in element.iterfind("attribute")}
    flag = parse_difficulty(texts.get("difficult"))
    heading = parse_heading(texts.get("heading"))
    return ObjectRow(corners, name, flag, parse_score(texts.get("score")), heading, line)


def _parse_box(element: ElementTree.Element) -> list[float]:
    x0, y0, x1, y1 = parse_coordinates(element.attrib[key] for key in ("xtl", "ytl", "xbr", "ybr"))
    width, height = parse_sides(x1 - x0, y1 - y0)
    # CVAT turns a box about its centre, so the centre of the unturned sides stays.
    (degrees,) = parse_coordinates([element.get("rotation") or 0.0])

    return rectangle_corners((x0 + x1) / 2, (y0 + y1) / 2, width, height, math.radians(degrees))


def _parse_mask(element: ElementTree.Element) -> list[float]:
    left, top = parse_coordinates(element.attrib[key] for key in ("left", "top"))
    width, height = (parse_whole(element.attrib[key]) for key in ("width", "height"))
    # The runs cover the mask's own rectangle, row by row, and not the image.
    counts = element.attrib["rle"].split(",")
    corners = mask_corners(counts, width, height, by_columns=False)

    return [value + (top if index % 2 else left) for index, value in enumerate(corners)]


def _add_shape(parent: ElementTree.Element, one: LabelledObject) -> None:
    """Write a rectangle as a box with its angle, and anything else as a polygon."""
    (cx, cy, width, height, angle), is_rectangle = fit_rectangle(one.polygon)
    common = {"label": one.name, "source": "manual", "occluded": "0"}
    if is_rectangle:
        sides = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        box = {k: shortest_decimal(v, 6) for k, v in zip(("xtl", "ytl", "xbr", "ybr"), sides)}
        # CVAT accepts angles from 0 to 360 degrees alone.
        degrees = shortest_decimal(math.degrees(angle) % 360, 8)
        shape = add_element(parent, "box", **common, **box, rotation=degrees, z_order="0")
    else:
        shape = add_element(parent, "polygon", **common, points=_points(one.polygon), z_order="0")

    texts = {"difficult": str(one.difficult) if one.difficult else ""}
    if one.score is not None:
        texts["score"] = repr(float(one.score))
    if one.heading is not None:
        texts["heading"] = format_heading(one.heading)
    for name, text in texts.items():
        if text:
            add_element(shape, "attribute", text, name=name)


def _points(polygon: np.ndarray) -> str:
    return ";".join(f"{shortest_decimal(x, 6)},{shortest_decimal(y, 6)}" for x, y in polygon)
