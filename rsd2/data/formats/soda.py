"""SODA-A's JSON: a file for each image with quadrilaterals of eight numbers.

Regions to be ignored are annotations of the category ``ignore``. The reader returns them as objects
of that class, and the evaluation decides what to do with them.
"""

from __future__ import annotations

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
)
from .label_format import FilePerImage, LabelledImage
from .label_parsing import open_json, stated_size, to_json
from .label_report import LabelReport
from .rectangles import polygon_corners
from .values import parse_id


class SodaA(FilePerImage):
    """``annotations`` with ``poly`` and ``category_id``, one entry ``images``, ``categories``."""

    name = "soda-a"
    title = "SODA-A JSON"
    kinds = ("SODA-A JSON",)
    holds = frozenset({"quadrilateral"})
    suffix = ".json"
    states_size = True

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        content = open_json(path, self.kinds, report)
        if content is None:
            return LabelPage()

        image = content["images"]
        name = image.get("file_name")
        page = LabelPage(
            file_name=name if isinstance(name, str) else None,
            size=stated_size(image.get("height"), image.get("width")),
        )

        # Every file repeats all categories; without them its numbers mean nothing.
        try:
            names = {
                parse_id(entry["id"]): clean_name(entry["name"]) for entry in content["categories"]
            }
        except ENTRY_ERRORS as error:
            add_entry_problem(report, path, None, "categories", error)
            return page

        for index, entry in enumerate(content["annotations"]):
            try:
                page.rows.append(_parse_annotation(entry, names))
            except ENTRY_ERRORS as error:
                add_entry_problem(report, path, None, f"annotations[{index}]", error)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        numbers = {name: number for number, name in enumerate(classes)}

        # SODA-A has one image per file: "images" is a mapping and not COCO's list.
        content = {
            "images": {
                "file_name": PurePosixPath(image.file_name).name,
                "height": image.height,
                "width": image.width,
                "id": 0,
            },
            "annotations": [
                {
                    "id": index,
                    "image_id": 0,
                    "category_id": numbers[one.name],
                    "poly": one.polygon.reshape(-1).tolist(),
                }
                for index, one in enumerate(image.objects)
            ],
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        }
        return to_json(content)


def _parse_annotation(entry: dict[str, Any], names: dict[int | str, str]) -> ObjectRow:
    number = parse_id(entry["category_id"])
    if number not in names:
        raise EntryError("unknown_category", f"no category has the id {number!r:.40}")
    return ObjectRow(polygon_corners(parse_coordinates(entry["poly"])), names[number])
