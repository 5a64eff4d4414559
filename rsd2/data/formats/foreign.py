"""Guesses the format of a label file, so that readers name a foreign one and do not misread it.

The names of formats are the keys of ``READERS``, which maps each format to its reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rsd2.data.file_names import is_side_file
from rsd2.io.text import TextError, read_json, read_lines

from .label_report import LabelReport
from .values import parse_number
from .xml_labels import read_xml

CONVERTER = "'rsd2 convert-labels'"
"""Command that reads the formats of annotation tools and writes them as other formats."""

READERS = {
    "DOTA text": "rsd2.data.datasets.load_dota_instances",
    "DOTA text with coordinates divided by width and height": "",
    "OHD-SJTU text": "rsd2.data.datasets.load_ohd_sjtu",
    "DOTA Task 1 results": "rsd2.evaluation.files.task1.read_task1",
    "YOLO text (upright boxes divided by width and height)": CONVERTER,
    "YOLO-OBB text (class number, then corners divided by width and height)": CONVERTER,
    "YOLO segmentation text (class number, then a polygon)": CONVERTER,
    "rows of tracks": "rsd2.data.formats.mot.read_mot_rows",
    "DIOR-R XML": "rsd2.data.datasets.load_dior_r",
    "Pascal VOC XML": "rsd2.data.datasets.rscardata.read_voc_boxes",
    "roLabelImg XML": CONVERTER,
    "FAIR1M XML": CONVERTER,
    "HRSC2016 XML": CONVERTER,
    "CVAT XML": CONVERTER,
    "LabelMe XML": "",
    "COCO JSON": "rsd2.data.datasets.load_coco_boxes",
    "COCO JSON with boxes divided by width and height": "",
    "COCO JSON of rotated boxes": CONVERTER,
    "COCO results": "rsd2.evaluation.files.coco_results.read_coco_results",
    "SODA-A JSON": CONVERTER,
    "LabelMe or X-AnyLabeling JSON": CONVERTER,
    "Label Studio JSON": CONVERTER,
    "VGG Image Annotator JSON": "",
    "CreateML JSON": "",
    "Supervisely JSON": "",
    "GeoJSON": CONVERTER,
    "GeoPackage": CONVERTER,
    "an index of tiles": "rsd2.data.datasets.load_dota_tiles",
    "XML": "",
    "JSON": "",
    "a web page": "",
    "a pointer of Git LFS": "'git lfs pull', which gets the file itself,",
}
"""Format -> function or command that reads it; empty if rsd2 does not read it yet."""

NORMALIZED_LIMIT = 1.2
"""Coordinates divided by width and height lie in 0 to 1, or a little beyond at the border."""

_SQLITE = b"SQLite format 3\0"  # a GeoPackage is a database
_FEW_BYTES = 1 << 26  # the guess does not read files larger than this


def describe_format(name: str) -> str:
    """Describe the format that a file seems to have, and its reader.

    Args:
        name: a key of ``READERS``, or the description of an unknown root element from `guess_xml`.

    Returns:
        a part of a sentence: "it looks like ..., which ... reads".
    """
    reader = READERS.get(name, "")
    return (
        f"it looks like {name}, which {f'{reader} reads' if reader else 'rsd2 does not read yet'}"
    )


def guess_line(line: str) -> str:
    """Guess the format of a text file from one of its lines.

    Args:
        line: a line that is not blank.

    Returns:
        a key of ``READERS``, or an empty string.
    """
    start = line.lstrip().lower()
    for beginning, name in (
        ("version https://git-lfs", "a pointer of Git LFS"),
        ("<!doctype html", "a web page"),
        ("<html", "a web page"),
        ("<", "XML"),
        ("{", "JSON"),
        ("[", "JSON"),
    ):
        if start.startswith(beginning):
            return name

    fields = line.split()
    numbers = _leading_numbers(fields)
    count = len(numbers)
    # YOLO's class number stands before the coordinates, so the first field is whole.
    if count == len(fields) and numbers[0] % 1 == 0 and is_normalized(numbers[1:9]):
        if count in (5, 6):
            return "YOLO text (upright boxes divided by width and height)"
        if count in (9, 10):
            return "YOLO-OBB text (class number, then corners divided by width and height)"
        return "YOLO segmentation text (class number, then a polygon)" if count > 6 else ""

    # Fewer than eight numbers say little, so the forms that need them come first.
    if count >= 8 and is_normalized(numbers[:8]):
        return "DOTA text with coordinates divided by width and height"
    if count < len(fields) and count in (8, 10):
        return "DOTA text" if count == 8 else "OHD-SJTU text"
    if count == 0 and len(fields) == 10 and len(_leading_numbers(fields[1:])) == 9:
        return "DOTA Task 1 results"

    cells = line.split(",")
    numbers = _leading_numbers(cells)
    if len(cells) >= 6 and len(numbers) == len(cells) and numbers[0] % 1 == 0:
        return "rows of tracks"
    return ""


def is_normalized(values: Sequence[float]) -> bool:
    """Tell whether numbers look like coordinates that were divided by width and height.

    Args:
        values: coordinates of one object.

    Returns:
        True if all lie between 0 and ``NORMALIZED_LIMIT``, or a little below 0, and at least one is
        a fraction: an object of one whole pixel in the corner of an image is not normalized.
    """
    low, high = min(values, default=2), max(values, default=2)
    within = low >= 1 - NORMALIZED_LIMIT and high <= NORMALIZED_LIMIT
    return within and any(value % 1 for value in values)


def guess_xml(root: ElementTree.Element) -> str:
    """Guess the format of an XML file.

    Args:
        root: root element of the file.

    Returns:
        a key of ``READERS``; ``XML with the root <...>`` for an unknown root element; an empty
        string for an annotation without objects.
    """
    tag = root.tag.rpartition("}")[2]
    # The root element alone tells these; the others share roots and differ in their objects.
    if tag == "annotations":
        return "CVAT XML"
    if tag == "HRSC_Image" or root.find("HRSC_Objects") is not None:
        return "HRSC2016 XML"
    if tag.lower() == "html":
        return "a web page"

    for place, name in (
        ("objects/object/points", "FAIR1M XML"),
        ("objects/object/possibleresult", "FAIR1M XML"),
        ("object/robndbox/x_left_top", "DIOR-R XML"),
        ("object/robndbox/cx", "roLabelImg XML"),
        ("object/bndbox", "Pascal VOC XML"),
        ("object/polygon", "LabelMe XML"),
    ):
        if root.find(place) is not None:
            return name

    return "" if tag == "annotation" else f"XML with the root <{tag}>"


def guess_json(content: Any) -> str:
    """Guess the format of a JSON file.

    Args:
        content: parsed content of the file.

    Returns:
        a key of ``READERS``, or an empty string.
    """
    kinds: tuple[tuple[set[str], str], ...]
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        kinds = (
            ({"image_id", "category_id", "score"}, "COCO results"),
            ({"data", "annotations"}, "Label Studio JSON"),
            ({"data", "predictions"}, "Label Studio JSON"),
            ({"image", "annotations"}, "CreateML JSON"),
            ({"original_width", "value"}, "Label Studio JSON"),
        )
    else:
        # SODA-A keeps its images in a dict where COCO has a list.
        first = content if isinstance(content, dict) else {}
        if str(first.get("format", "")).startswith("rsd2-tiles"):
            return "an index of tiles"

        annotations = first.get("annotations")
        if isinstance(annotations, list) and isinstance(first.get("images"), dict):
            return "SODA-A JSON"

        kinds = (
            ({"images", "annotations", "categories"}, "COCO JSON"),
            ({"shapes"}, "LabelMe or X-AnyLabeling JSON"),
            ({"data", "annotations"}, "Label Studio JSON"),
            ({"_via_img_metadata"}, "VGG Image Annotator JSON"),
            ({"objects", "size"}, "Supervisely JSON"),
            ({"features", "type"}, "GeoJSON"),
        )

    # The first entry whose keys are all there wins, so narrower sets of keys stand first.
    return next((name for keys, name in kinds if keys <= first.keys()), "")


def guess_file(path: str | Path) -> str:
    """Guess the format of a label file from its ending and content.

    Args:
        path: path of the file.

    Returns:
        a key of ``READERS``, or an empty string: also for what cannot be read.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _FEW_BYTES:
            return ""
        if path.suffix.lower() in (".json", ".geojson"):
            return guess_json(read_json(path))
        if path.suffix.lower() == ".gpkg":
            with path.open("rb") as stream:
                return "GeoPackage" if stream.read(len(_SQLITE)) == _SQLITE else ""
        if path.suffix.lower() == ".xml":
            root = read_xml(path, LabelReport(), lines_of=())
            return "" if root is None else guess_xml(root)

        # DOTA files may begin with "imagesource:" and "gsd:", which say nothing about the objects.
        lines = (line for line in read_lines(path) if line.strip() and ":" not in line.split()[0])
        return guess_line(next(lines, "-"))
    except (OSError, TextError):
        return ""


def describe_folder(folder: str | Path) -> str:
    """Describe the content of a folder without the expected label files.

    Args:
        folder: folder to look at.

    Returns:
        a sentence: how many files of which endings, and what the first of the most frequent ones
        looks like.
    """
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and not is_side_file(p.name))
    if not files:
        return "It is empty."

    counts = Counter(path.suffix.lower() or "no ending" for path in files)
    endings = ", ".join(f"{number} of {ending}" for ending, number in counts.most_common(4))

    most = counts.most_common(1)[0][0]
    first = next(path for path in files if (path.suffix.lower() or "no ending") == most)

    name = guess_file(first) if first.suffix.lower() in (".xml", ".json", ".txt") else ""
    looks = f"; {first.name}: {describe_format(name)}" if name else ""
    return f"It holds {len(files)} files ({endings}){looks}."


def _leading_numbers(fields: Sequence[str]) -> list[float]:
    """Return the numbers at the beginning of the fields, up to the first that is not a number."""
    numbers = []
    for field in fields:
        try:
            numbers.append(parse_number(field))
        except ValueError:
            break
    return numbers
