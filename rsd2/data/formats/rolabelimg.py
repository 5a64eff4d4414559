"""roLabelImg's XML: Pascal VOC with boxes that have an angle, in radians, clockwise on screen."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from .label_entries import (
    LabelPage,
    Names,
    ObjectRow,
    Size,
    clean_name,
    parse_coordinates,
    parse_sides,
)
from .label_format import FilePerImage, LabelledImage
from .label_parsing import (
    add_element,
    add_xml_rows,
    child_text,
    open_xml,
    read_stated_size,
    to_xml,
)
from .label_report import LabelReport
from .rectangles import fit_rectangle, rectangle_corners, upright_corners
from .values import parse_difficulty, shortest_decimal


class RoLabelImg(FilePerImage):
    """``<robndbox>`` with ``cx cy w h angle``; upright ``<bndbox>`` objects are read too."""

    name = "rolabelimg"
    title = "roLabelImg XML"
    kinds = ("roLabelImg XML", "Pascal VOC XML")
    holds = frozenset({"difficult", "cut"})
    suffix = ".xml"
    states_size = True

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        root = open_xml(path, self.kinds, report, ("object", "height"))
        if root is None:
            return LabelPage()
        page = LabelPage(file_name=root.findtext("filename"))
        read_stated_size(page, root, "size/height", "size/width")
        add_xml_rows(page, root.findall("object"), _parse_object, path, report)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        root = ElementTree.Element("annotation", verified="no")
        name = PurePosixPath(image.file_name)
        add_element(root, "folder", name.parent.name)
        add_element(root, "filename", name.name)
        add_element(root, "path", image.file_name)
        add_element(add_element(root, "source"), "database", "Unknown")
        size = add_element(root, "size")
        for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
            add_element(size, tag, value)
        add_element(root, "segmented", 0)

        for one in image.objects:
            element = add_element(root, "object")
            add_element(element, "type", "robndbox")
            add_element(element, "name", one.name)
            add_element(element, "pose", "Unspecified")
            add_element(element, "truncated", 0)
            add_element(element, "difficult", one.difficult)

            box = add_element(element, "robndbox")
            *sides, angle = fit_rectangle(one.polygon)[0]
            for tag, length in zip(("cx", "cy", "w", "h"), sides):
                add_element(box, tag, shortest_decimal(length, 6))
            # Not negative, and of a full turn, so that the first vertex stays the first.
            add_element(box, "angle", shortest_decimal(angle % (2 * math.pi), 10))
        return to_xml(root)


def _parse_object(element: ElementTree.Element, line: int) -> ObjectRow:
    name = clean_name(child_text(element, "name"))
    box = element.find("robndbox")

    # The tool writes an upright box as a plain "bndbox", without an angle.
    if box is not None:
        texts = [child_text(box, tag) for tag in ("cx", "cy", "w", "h", "angle")]
        cx, cy, width, height, angle = parse_coordinates(texts)
        width, height = parse_sides(width, height)
        corners = rectangle_corners(cx, cy, width, height, angle)
    else:
        places = (f"bndbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
        x0, y0, x1, y1 = parse_coordinates(child_text(element, place) for place in places)
        corners = upright_corners(x0, y0, *parse_sides(x1 - x0, y1 - y0))

    flag = parse_difficulty((element.findtext("difficult") or "").strip())
    return ObjectRow(corners, name, flag, line=line)
