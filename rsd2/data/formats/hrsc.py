"""HRSC2016's XML: ships as boxes with an angle in radians, clockwise, and the point of the bow.

``Class_ID`` is a number of nine digits. The dataset's ``sysdata.xml`` names the numbers; without
that file, the table below does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from rsd2.data.class_orders import HRSC2016_TYPES

from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    Names,
    ObjectRow,
    Size,
    clean_name,
    parse_coordinates,
    parse_sides,
)
from .label_format import FilePerImage, LabelledImage
from .label_parsing import add_element, add_xml_rows, child_text, open_xml, read_stated_size, to_xml
from .label_report import LabelReport
from .rectangles import fit_rectangle, rectangle_corners
from .values import parse_difficulty, parse_whole, shortest_decimal
from .xml_labels import read_xml

FIRST_ID = 100000000
_WITHOUT_NUMBER = (21, 23)
HRSC_CLASSES = dict(
    zip((n for n in range(1, 34) if n not in _WITHOUT_NUMBER), HRSC2016_TYPES, strict=True)
)
"""Last two digits of ``Class_ID`` -> name of the class in the dataset's ``sysdata.xml``."""

_BOX = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
_TABLE = "sysdata.xml"
_LEVELS = 4  # number of folders above the labels that may hold the table


class Hrsc(FilePerImage):
    """``mbox_cx mbox_cy mbox_w mbox_h mbox_ang`` and ``header_x header_y`` of each object."""

    name = "hrsc"
    title = "HRSC2016 XML"
    kinds = ("HRSC2016 XML",)
    holds = frozenset({"difficult", "cut", "heading"})
    suffix = ".xml"
    sub_folder = "Annotations"
    states_size = True
    no_labels = (_TABLE,)

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        root = open_xml(path, self.kinds, report, ("HRSC_Object", "Img_SizeHeight"))
        if root is None:
            return LabelPage()
        names = _names(path.parent)

        stem = root.findtext("Img_FileName") or ""
        kind = (root.findtext("Img_FileFmt") or "bmp").strip()
        page = LabelPage(file_name=f"{stem.strip()}.{kind}")
        # The height is Img_SizeHeight; several other readers exchange the two sides.
        read_stated_size(page, root, "Img_SizeHeight", "Img_SizeWidth")

        elements = root.findall("HRSC_Objects/HRSC_Object")
        add_xml_rows(page, elements, partial(_parse_object, names=names), path, report)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        root = ElementTree.Element("HRSC_Image")
        name = PurePosixPath(image.file_name)
        add_element(root, "Img_SizeWidth", image.width)
        add_element(root, "Img_SizeHeight", image.height)
        add_element(root, "Img_SizeDepth", 3)
        add_element(root, "Img_FileName", name.stem)
        add_element(root, "Img_FileFmt", name.suffix.removeprefix(".") or "png")
        objects = add_element(root, "HRSC_Objects")
        numbers = _numbers(classes)

        for index, one in enumerate(image.objects, start=1):
            element = add_element(objects, "HRSC_Object")
            add_element(element, "Object_ID", FIRST_ID + index)
            add_element(element, "Class_ID", FIRST_ID + numbers[one.name])
            add_element(element, "Object_NO", FIRST_ID + index)
            add_element(element, "truncated", 0)
            add_element(element, "difficult", one.difficult)

            (x0, y0), (x1, y1) = one.polygon.min(axis=0), one.polygon.max(axis=0)
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (x0, y0, x1, y1)):
                add_element(element, f"box_{tag}", shortest_decimal(value, 6))

            *sides, angle = fit_rectangle(one.polygon)[0]
            for tag, value in zip(("cx", "cy", "w", "h"), sides):
                add_element(element, f"mbox_{tag}", shortest_decimal(value, 6))
            add_element(element, "mbox_ang", shortest_decimal(angle, 10))

            if one.heading is not None:
                for tag, value in zip(("header_x", "header_y"), one.heading):
                    add_element(element, tag, shortest_decimal(value, 6))
        return to_xml(root)

    def extra_files(
        self, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> dict[str, str]:
        """Return the table of the classes, see `FilePerImage.extra_files`."""
        root = ElementTree.Element("HRSC_Sys")
        table = add_element(root, "HRSC_Classes")
        for name, number in _numbers(classes).items():
            entry = add_element(table, "HRSC_Class")
            add_element(entry, "Class_ID", FIRST_ID + number)
            add_element(entry, "Class_EngName", name)
        return {_TABLE: to_xml(root)}


def _names(folder: Path) -> dict[int, str]:
    """Return number -> name from the nearest table beside or above the labels."""
    for place in (folder, *islice(folder.parents, _LEVELS)):
        try:
            changed = (place / _TABLE).stat().st_mtime_ns
        except OSError:
            continue
        return _read_table(place / _TABLE, changed)
    return HRSC_CLASSES


@lru_cache(maxsize=8)
def _read_table(path: Path, changed: int) -> dict[int, str]:
    """Read the classes of a table once for all label files; ``changed`` renews the cached ones."""
    report = LabelReport()
    root = read_xml(path, report, lines_of=())
    if root is None:
        raise ValueError(report.summary())

    try:
        return {
            parse_whole(child_text(entry, "Class_ID")) - FIRST_ID: clean_name(
                child_text(entry, "Class_EngName")
            )
            for entry in root.iter("HRSC_Class")
        }
    except ENTRY_ERRORS as error:
        raise ValueError(f"{path}: {error}; get the table again or remove it.") from error


def _numbers(classes: Sequence[str]) -> dict[str, int]:
    """Return name -> number: the dataset's own if it has all names, else numbers from 1 on."""
    known = {name: number for number, name in HRSC_CLASSES.items()}
    # A mixture could give a new class the number of one that readers know by another name.
    if all(name in known for name in classes):
        return {name: known[name] for name in classes}
    return {name: number for number, name in enumerate(classes, start=1)}


def _parse_object(element: ElementTree.Element, line: int, names: dict[int, str]) -> ObjectRow:
    number = parse_whole(child_text(element, "Class_ID"))
    # Some copies of the dataset write the last two digits alone.
    name = names.get(number - FIRST_ID if number >= FIRST_ID else number)
    if name is None:
        raise EntryError("unknown_category", f"no class has the Class_ID {number}")

    cx, cy, width, height, angle = parse_coordinates([child_text(element, tag) for tag in _BOX])
    width, height = parse_sides(width, height)
    corners = rectangle_corners(cx, cy, width, height, angle)

    head = [(element.findtext(tag) or "").strip() for tag in ("header_x", "header_y")]
    heading = None
    # Files without a heading leave the two elements out or empty.
    if all(head):
        x, y = parse_coordinates(head)
        heading = (x, y)

    flag = parse_difficulty((element.findtext("difficult") or "").strip())
    return ObjectRow(corners, name, flag, heading=heading, line=line)
