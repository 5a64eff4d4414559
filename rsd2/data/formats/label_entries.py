"""Entries of label files: the rows and pages that parsers return, and their problems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rsd2.io.text import TextError

from .label_report import LabelReport
from .values import is_coordinate, parse_number, shortest_decimal

Size = tuple[int, int] | None
"""(height, width) of an image in pixels, or None if it is unknown."""


Names = tuple[str, ...]
"""Names of the classes, in the order of their numbers."""


ENTRY_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""Exceptions that a parser raises for an entry whose shape its format does not allow."""


_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class EntryError(ValueError):
    """Problem of an object that cannot be used.

    Attributes:
        kind: kind of the problem, a key of ``REMEDIES``.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Store the message and the kind of the problem."""
        super().__init__(message)
        self.kind = kind


class ObjectRow(NamedTuple):
    """An object as a parser returns it.

    Attributes:
        corners: coordinates x1, y1, ... y4 in pixels.
        name: name of its class.
        difficult: 0, 1, or 2 for an object that tiling cut.
        score: score of a prediction, or None.
        heading: point x, y in pixels to which the object points, or None.
        line: 1-based line of the file; 0 in formats whose objects have no line.
    """

    corners: Sequence[float]
    name: str
    difficult: int = 0
    score: float | None = None
    heading: tuple[float, float] | None = None
    line: int = 0


@dataclass
class LabelPage:
    """What a label file says about one image.

    Attributes:
        rows: objects of the image.
        file_name: name of the image, as the file states it; None if it states none.
        size: (height, width) of the image in pixels, as the file states it; None if it does not.
        size_line: 1-based line of the size; None in formats without lines.
    """

    rows: list[ObjectRow] = field(default_factory=list)
    file_name: str | None = None
    size: tuple[int, int] | None = None
    size_line: int | None = None


def clean_name(value: Any) -> str:
    """Bring a class name into the form in which it is compared.

    Args:
        value: text, or a whole number.

    Returns:
        the name, with single blanks between its words.

    Raises:
        EntryError: for an empty name, one with control characters, or a value of another type.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise EntryError("label_entry", f"{value!r:.80} is not a class name")

    # Control characters and lone surrogates would break the files that name classes.
    name = " ".join(str(value).split())
    if not name or _NO_TEXT.search(name):
        raise EntryError("label_entry", f"{value!r:.80} is not a class name")
    return name


def clean_file_name(name: str) -> str:
    """Make a name relative, so that writers never leave the output folder.

    Args:
        name: name as a label file states it.

    Returns:
        the name with ``/`` and without drive, root and ``..``.
    """
    parts = name.replace("\\", "/").split("/")
    # A part that ends in a colon is a Windows drive.
    return "/".join(part for part in parts if part not in ("", ".", "..") and part[-1] != ":")


def parse_coordinates(values: Iterable[Any]) -> list[float]:
    """Turn values into coordinates in pixels.

    Args:
        values: numbers, or texts of numbers.

    Returns:
        the numbers.

    Raises:
        EntryError: for NaN, infinite or huge numbers.
        ValueError: for a value that is no number.
    """
    values = list(values)
    kinds = set(map(type, values))
    # The usual cases in one go: label files have millions of coordinates.
    if kinds == {float}:
        numbers = values
    elif kinds == {str} and "_" not in "".join(values):
        numbers = list(map(float, values))
    else:
        numbers = [parse_number(value) for value in values]

    if not is_coordinate(*numbers):
        raise EntryError("non_finite", f"coordinates {' '.join(f'{n:g}' for n in numbers)}")
    return numbers


def parse_sides(*values: Any) -> list[float]:
    """Turn values into lengths of sides in pixels.

    Args:
        values: numbers, or texts of numbers.

    Returns:
        the numbers.

    Raises:
        EntryError: for a side that is not > 0.
        ValueError: for a value that is no number.
    """
    sides = parse_coordinates(values)
    if min(sides) <= 0:
        raise EntryError("box_without_area", f"sides {' '.join(f'{side:g}' for side in sides)}")
    return sides


def parse_score(value: Any) -> float | None:
    """Turn a value into a score.

    Args:
        value: a number or text; None and an empty text mean that there is no score.

    Returns:
        the score, or None.

    Raises:
        ValueError: if the value is not a finite number.
    """
    if value is None or value == "":
        return None

    # Scores share the bound of coordinates, which NaN and infinity fail.
    score = parse_number(value)
    if not is_coordinate(score):
        raise ValueError(f"score {value!r:.80}")
    return score


def parse_heading(value: Any) -> tuple[float, float] | None:
    """Turn an attribute of an object into the point to which the object points.

    Args:
        value: the text ``x,y`` or a pair of numbers; None or an empty text if there is no heading.

    Returns:
        x, y in pixels, or None.

    Raises:
        ValueError: for anything else.
    """
    if value is None or value == "":
        return None

    pair = parse_coordinates(value.split(",") if isinstance(value, str) else value)
    if len(pair) != 2:
        raise EntryError("label_entry", f"the heading {value!r:.40} is not 'x,y'")
    return pair[0], pair[1]


def format_heading(point: tuple[float, float]) -> str:
    """Write the point to which an object points as an attribute: ``x,y``."""
    return ",".join(shortest_decimal(value, 6) for value in point)


def add_entry_problem(
    report: LabelReport, path: Path, line: int | None, where: str, error: Exception
) -> None:
    """Report an object that cannot be used.

    Args:
        report: report that gets the problem.
        path: path of the label file.
        line: 1-based line of the file, or None.
        where: place of the entry, for example ``annotations[3]``.
        error: exception that the parser raised.
    """
    kind = error.kind if isinstance(error, EntryError) else "label_entry"
    # The text of a KeyError is the bare key, which says nothing to a reader.
    missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    report.add(kind, path, line, f"{where}: {missing}")


def add_file_problem(report: LabelReport, path: Path, error: OSError | TextError) -> LabelPage:
    """Report a label file that cannot be read, and return an empty page."""
    report.add_unreadable(path, error)
    return LabelPage()
