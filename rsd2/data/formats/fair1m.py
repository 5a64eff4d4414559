"""FAIR1M's XML: quadrilaterals whose first point is repeated, and names with a probability."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from .label_entries import (
    EntryError,
    LabelPage,
    Names,
    ObjectRow,
    Size,
    clean_name,
    parse_coordinates,
    parse_score,
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
from .rectangles import polygon_corners
from .values import shortest_decimal


class Fair1m(FilePerImage):
    """``<points>`` with five ``<point>x,y</point>`` in pixels, ``<possibleresult>`` with a name."""

    name = "fair1m"
    title = "FAIR1M XML"
    kinds = ("FAIR1M XML",)
    holds = frozenset({"score", "quadrilateral"})
    suffix = ".xml"
    states_size = True

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        root = open_xml(path, self.kinds, report, ("object", "height"))
        if root is None:
            return LabelPage()

        page = LabelPage(file_name=root.findtext("source/filename"))
        read_stated_size(page, root, "size/height", "size/width")
        add_xml_rows(page, root.findall("objects/object"), _parse_object, path, report)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        root = ElementTree.Element("annotation")
        source = add_element(root, "source")
        add_element(source, "filename", PurePosixPath(image.file_name).name)
        add_element(source, "origin", "unknown")
        size = add_element(root, "size")
        for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
            add_element(size, tag, value)
        objects = add_element(root, "objects")

        for one in image.objects:
            element = add_element(objects, "object")
            add_element(element, "coordinate", "pixel")
            add_element(element, "type", "rectangle")
            add_element(element, "description", "None")
            result = add_element(element, "possibleresult")
            add_element(result, "name", one.name)
            if one.score is not None:
                add_element(result, "probability", repr(float(one.score)))

            points = add_element(element, "points")
            # FAIR1M closes its outlines: the first point follows the last one again.
            for x, y in [*one.polygon, one.polygon[0]]:
                add_element(points, "point", f"{shortest_decimal(x, 6)},{shortest_decimal(y, 6)}")
        return to_xml(root)


def _parse_object(element: ElementTree.Element, line: int) -> ObjectRow:
    unit = (element.findtext("coordinate") or "pixel").strip().lower()
    # Other units, such as degrees of longitude, would pass as tiny pixel coordinates.
    if unit != "pixel":
        raise EntryError("label_entry", f"the unit of coordinates is not pixel but {unit!r:.40}")

    outline, result = element.find("points"), element.find("possibleresult")
    if outline is None or result is None:
        missing = "points" if outline is None else "possibleresult"
        raise EntryError("label_entry", f"the element {missing} is missing")

    texts = [point.text or "" for point in outline.findall("point")]
    for text in texts:
        if text.count(",") != 1:
            raise EntryError("label_entry", f"the point {text!r:.40} is not 'x,y'")

    values = parse_coordinates(",".join(texts).split(","))
    name, score = child_text(result, "name"), (result.findtext("probability") or "").strip()
    return ObjectRow(polygon_corners(values), clean_name(name), score=parse_score(score), line=line)
