"""JSON of LabelMe and X-AnyLabeling: shapes as points in pixels.

X-AnyLabeling states a ``direction`` beside the four points of a rotated box, in radians or in
degrees depending on its version. The reader ignores it, because the points define the box.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    Names,
    ObjectRow,
    Size,
    add_entry_problem,
    clean_name,
    parse_coordinates,
    parse_score,
)
from .label_format import FilePerImage, LabelledImage
from .label_parsing import open_json, stated_size, to_json
from .label_report import LabelReport
from .rectangles import fit_rectangle, polygon_corners, upright_corners
from .values import parse_boolean

VERSION = "2.4.0"
"""Version of X-AnyLabeling whose layout the writer follows; LabelMe reads it, too."""


class LabelMe(FilePerImage):
    """``shapes`` of the types ``rotation``, ``polygon`` and ``rectangle``."""

    name = "labelme"
    title = "LabelMe or X-AnyLabeling JSON"
    kinds = ("LabelMe or X-AnyLabeling JSON",)
    holds = frozenset({"difficult", "score", "quadrilateral"})
    suffix = ".json"
    states_size = True

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        content = open_json(path, self.kinds, report)
        if content is None:
            return LabelPage()

        name, shapes = content.get("imagePath"), content["shapes"]
        page = LabelPage(
            file_name=name if isinstance(name, str) else None,
            size=stated_size(content.get("imageHeight"), content.get("imageWidth")),
        )
        if not isinstance(shapes, list):
            report.add("label_entry", path, None, "shapes is no list")
            return page

        for index, shape in enumerate(shapes):
            try:
                page.rows.append(_parse_shape(shape))
            except ENTRY_ERRORS as error:
                add_entry_problem(report, path, None, f"shapes[{index}]", error)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        shapes = []
        for one in image.objects:
            (*_, angle), is_rectangle = fit_rectangle(one.polygon)
            shape: dict[str, Any] = {
                "label": one.name,
                "score": None if one.score is None else float(one.score),
                "points": one.polygon.tolist(),
                "group_id": None,
                "description": "",
                "difficult": bool(one.difficult),
                "shape_type": "rotation" if is_rectangle else "polygon",
                "flags": {},
                "attributes": {},
            }
            if is_rectangle:
                shape["direction"] = angle % (2 * math.pi)
            shapes.append(shape)

        # The tool opens the image beside the label file, so the name has no folder.
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(image.file_name).name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        return to_json(content)


def _parse_shape(shape: dict[str, Any]) -> ObjectRow:
    points = [parse_coordinates(point) for point in shape["points"]]
    if any(len(point) != 2 for point in points):
        raise EntryError("label_entry", "points are not pairs")
    # Older versions of LabelMe write no shape_type; their shapes are polygons.
    kind = shape.get("shape_type") or "polygon"
    # LabelMe's rectangle is two opposite corners, in the order in which they were clicked.
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        corners = upright_corners(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
    elif kind in ("rotation", "polygon", "rectangle"):
        corners = polygon_corners([value for point in points for value in point])
    else:
        raise EntryError("label_shape", f"its shape_type is {kind!r:.40}")

    flag, score = parse_boolean(shape.get("difficult")), parse_score(shape.get("score"))
    return ObjectRow(corners, clean_name(shape["label"]), int(flag), score)
