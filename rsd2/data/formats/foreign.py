"""Which format a label file looks like, so that a reader tells a foreign one instead of misreading.

The names below are those of ``READERS``, which says by what each format is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rsd2.io.text import TextError, read_json, read_lines

from .label_report import LabelReport
from .values import parse_number
from .xml_labels import read_xml

READERS = {
    "DOTA text": "rsd2.data.datasets.load_dota_instances",
    "DOTA text with coordinates divided by width and height": "",
    "OHD-SJTU text": "rsd2.data.datasets.load_ohd_sjtu",
    "DOTA Task 1 results": "rsd2.evaluation.files.task1.read_task1",
    "YOLO text (upright boxes divided by width and height)": "",
    "YOLO-OBB text (class number, then corners divided by width and height)": "",
    "YOLO segmentation text (class number, then a polygon)": "",
    "rows of tracks": "rsd2.data.formats.mot.read_mot_rows",
    "DIOR-R XML": "rsd2.data.datasets.load_dior_r",
    "Pascal VOC XML": "rsd2.data.datasets.rscardata.read_voc_boxes",
    "roLabelImg XML": "",
    "FAIR1M XML": "",
    "HRSC2016 XML": "",
    "CVAT XML": "",
    "LabelMe XML": "",
    "COCO JSON": "rsd2.data.datasets.load_coco_boxes",
    "COCO JSON with boxes divided by width and height": "",
    "COCO JSON of rotated boxes": "",
    "COCO results": "rsd2.evaluation.files.coco_results.read_coco_results",
    "SODA-A JSON": "",
    "LabelMe or X-AnyLabeling JSON": "",
    "Label Studio JSON": "",
    "VGG Image Annotator JSON": "",
    "CreateML JSON": "",
    "Supervisely JSON": "",
    "GeoJSON": "",
    "an index of tiles": "rsd2.data.datasets.load_dota_tiles",
    "XML": "",
    "JSON": "",
    "a web page": "",
    "a pointer of Git LFS": "'git lfs pull', which gets the file itself,",
}
"""Format -> what reads it; empty where rsd2 does not read it yet."""

NORMALIZED_LIMIT = 1.2
"""Coordinates divided by width and height lie in 0 to 1, or a little beyond at the border."""

_FEW_BYTES = 1 << 26  # larger files are not read to guess a format


def describe_format(name: str) -> str:
    """Say what a file looks like and what reads it.

    Args:
        name: a key of ``READERS``, or the root element of an XML file that nobody knows.

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
        line: not blank.

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
    numbers = [_number(field) for field in fields]
    count = next((k for k, number in enumerate(numbers) if number is None), len(fields))
    if count == len(fields) and numbers[0] % 1 == 0 and is_normalized(numbers[1:9]):
        if count in (5, 6):
            return "YOLO text (upright boxes divided by width and height)"
        if count in (9, 10):
            return "YOLO-OBB text (class number, then corners divided by width and height)"
        return "YOLO segmentation text (class number, then a polygon)" if count > 6 else ""
    if count >= 8 and is_normalized(numbers[:8]):
        return "DOTA text with coordinates divided by width and height"
    if count < len(fields) and count in (8, 10):
        return "DOTA text" if count == 8 else "OHD-SJTU text"
    if count == 0 and len(fields) == 10 and None not in numbers[1:]:
        return "DOTA Task 1 results"
    cells = [_number(cell) for cell in line.split(",")]
    if len(cells) >= 6 and None not in cells and cells[0] % 1 == 0:
        return "rows of tracks"
    return ""


def is_normalized(values: Sequence[float]) -> bool:
    """Whether numbers look like coordinates that were divided by width and height.

    Args:
        values: coordinates of one object.

    Returns:
        True if all lie in 0 to ``NORMALIZED_LIMIT`` or a little below, and any is a fraction, so
        that an object of one whole pixel in the corner of an image is none.
    """
    low, high = min(values, default=2), max(values, default=2)
    within = low >= 1 - NORMALIZED_LIMIT and high <= NORMALIZED_LIMIT
    return within and any(value % 1 for value in values)


def guess_xml(root: ElementTree.Element) -> str:
    """Guess the format of an XML file.

    Args:
        root: its root element.

    Returns:
        a key of ``READERS``; the root element as ``XML with the root <...>`` if nobody knows it; an
        empty string for an annotation without objects.
    """
    tag = root.tag.rpartition("}")[2]
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
        content: of the file.

    Returns:
        a key of ``READERS``, or an empty string.
    """
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
    return next((name for keys, name in kinds if keys <= first.keys()), "")


def guess_file(path: str | Path) -> str:
    """Guess the format of a label file from its ending and content.

    Args:
        path: of the file.

    Returns:
        a key of ``READERS``, or an empty string: also for what cannot be read.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _FEW_BYTES:
            return ""
        if path.suffix.lower() == ".json":
            return guess_json(read_json(path))
        if path.suffix.lower() == ".xml":
            root = read_xml(path, LabelReport())
            return "" if root is None else guess_xml(root)
        lines = (line for line in read_lines(path) if line.strip() and ":" not in line.split()[0])
        return guess_line(next(lines, "-"))
    except (OSError, TextError):
        return ""


def describe_folder(folder: str | Path) -> str:
    """Say what a folder holds when it does not hold the expected label files.

    Args:
        folder: to look at.

    Returns:
        a sentence: how many files of which endings, and what the first of the most frequent ones
        looks like.
    """
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and p.name[0] != ".")
    if not files:
        return "It is empty."
    counts = Counter(path.suffix.lower() or "no ending" for path in files)
    endings = ", ".join(f"{number} of {ending}" for ending, number in counts.most_common(4))
    most = counts.most_common(1)[0][0]
    first = next(path for path in files if (path.suffix.lower() or "no ending") == most)
    name = guess_file(first) if first.suffix.lower() in (".xml", ".json", ".txt") else ""
    looks = f"; {first.name}: {describe_format(name)}" if name else ""
    return f"It holds {len(files)} files ({endings}){looks}."


def _number(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None
