"""YOLO's oriented boxes: a class index and four corners divided by width and height of the image.

A line is ``class x1 y1 x2 y2 x3 y3 x4 y4``, followed by a score in predictions and by a whole
number in tracks. ``data.yaml`` names the classes. The reader also takes lines of upright boxes
(``class cx cy w h``) and of outlines (any other number of points), and makes four corners of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import yaml

from rsd2.io.text import TextError, read_lines, read_text

from .foreign import describe_format, guess_line, is_normalized
from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    Names,
    ObjectRow,
    Size,
    add_entry_problem,
    add_file_problem,
    clean_name,
    parse_coordinates,
    parse_score,
)
from .label_format import FilePerImage, LabelledImage
from .label_report import LabelReport
from .rectangles import polygon_corners, upright_corners
from .values import parse_id, shortest_decimal

_DECIMALS = 12  # finer than 1e-4 pixels in an image of any size
_LISTS = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")


class YoloObb(FilePerImage):
    """Text files under ``labels`` and a list of the classes, ``data.yaml``, beside that folder."""

    name = "yolo-obb"
    title = "YOLO-OBB text"
    kinds = (
        "YOLO-OBB text (class number, then corners divided by width and height)",
        "YOLO segmentation text (class number, then a polygon)",
        "YOLO text (upright boxes divided by width and height)",
    )
    holds = frozenset({"score", "quadrilateral"})
    suffix = ".txt"
    sub_folder = "labels"
    no_labels = ("classes.txt",)

    def class_names(self, path: str | Path) -> tuple[str, ...]:
        """Return the names of the class list in their order, see `LabelFormat.class_names`.

        Raises:
            ValueError: if the list is broken; the message names the file.
        """
        path = Path(path)
        if path.suffix.lower() in (".yaml", ".yml"):
            return read_class_list(path)

        folder = path if path.is_dir() else path.parent
        # Labels often lie in labels/train, and the list beside labels.
        for place in (folder, folder.parent, folder.parent.parent):
            for name in _LISTS:
                if (place / name).is_file():
                    return read_class_list(place / name)
        return ()

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        page = LabelPage()
        if size is None:
            report.add("label_entry", path, None, "shares of an image whose size is not known")
            return page

        try:
            lines = read_lines(path)
        except (OSError, TextError) as error:
            return add_file_problem(report, path, error)

        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields:
                continue
            try:
                page.rows.append(_parse_fields(fields, size, classes, number))
            except ENTRY_ERRORS as error:
                foreign = guess_line(line)
                if foreign and foreign not in self.kinds:
                    error = EntryError("foreign_format", f"{error}: {describe_format(foreign)}")
                add_entry_problem(report, path, number, f"{line[:120]!r}", error)
        return page

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        numbers = {name: str(number) for number, name in enumerate(classes)}
        lines = []
        for one in image.objects:
            values = (one.polygon / (image.width, image.height)).reshape(-1)

            # A number without a point is a track, so scores keep theirs.
            fields = [numbers[one.name], *(shortest_decimal(v, _DECIMALS) for v in values)]
            if one.score is not None:
                fields.append(np.format_float_positional(one.score, trim="0"))
            lines.append(" ".join(fields) + "\n")
        return "".join(lines)

    def extra_files(
        self, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> dict[str, str]:
        """Return the list of the classes, see `FilePerImage.extra_files`."""
        names = dict(enumerate(classes))
        content = {"path": ".", "train": "images", "val": "images", "names": names}
        return {"data.yaml": yaml.safe_dump(content, allow_unicode=True, sort_keys=False)}


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read the names of the classes.

    Args:
        path: a YAML file whose ``names`` are a list or a mapping from numbers, or a text file with
            a name on each line.

    Returns:
        the names in the order of their numbers.

    Raises:
        ValueError: if the file is broken or leaves numbers out; the message names the file.
    """
    if path.suffix.lower() == ".txt":
        return tuple(clean_name(line) for line in read_lines(path) if line.strip())

    try:
        content = yaml.safe_load(read_text(path))
        names = content["names"]
        if isinstance(names, Mapping):
            by_number = {parse_id(number): name for number, name in names.items()}
            # A gap in the numbers raises KeyError here; closing it would shift the classes behind
            # it.
            names = [by_number[number] for number in range(len(by_number))]
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ValueError(f"names is {names!r:.80}")
        return tuple(clean_name(name) for name in names)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no list 'names' of the classes, with numbers from 0 ({error}); write for "
            "example 'names: [ship, storage tank]'."
        ) from error


def _parse_fields(
    fields: Sequence[str], size: tuple[int, int], classes: Sequence[str], line: int
) -> ObjectRow:
    values = parse_coordinates(fields)
    if values[0] % 1 or values[0] < 0:
        raise EntryError("number", f"the class {fields[0]!r} is not a whole number >= 0")

    number = int(values[0])
    if number >= len(classes):
        raise EntryError(
            "unknown_category",
            f"the class {number} has no name among {len(classes)}; write it into data.yaml or give "
            "the class list",
        )

    # Corners and boxes take an even number of fields after the class; what is left over is a score,
    # a track, or both.
    extra: list[str] = []
    if len(fields) in (6, 10):
        extra = [fields[-1]]
    elif len(fields) == 11 and not set(".eE") & set(fields[-1]):
        extra = list(fields[-2:])

    shape = values[1 : len(values) - len(extra)]
    # Points a little beyond the border are usual, so only clearly larger numbers are pixels.
    if not is_normalized(shape) and max(map(abs, shape), default=0) > 2:
        raise EntryError("foreign_format", "the coordinates are not divided by width and height")

    height, width = size
    if len(shape) == 4:
        cx, cy, w, h = (v * side for v, side in zip(shape, (width, height, width, height)))
        corners = upright_corners(cx - w / 2, cy - h / 2, w, h)
    else:
        corners = polygon_corners([v * side for v, side in zip(shape, cycle((width, height)))])

    # A score has a point or an exponent, a track has neither.
    score = next((parse_score(text) for text in extra if set(".eE") & set(text)), None)
    return ObjectRow(corners, classes[number], score=score, line=line)
