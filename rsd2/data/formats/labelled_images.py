"""Images with their objects, as every label format gives and takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from rsd2.data.class_orders import canonical_class_name

from .dota import DotaLabels, check_polygons
from .label_entries import LabelPage
from .label_report import LabelReport

_NOWHERE = (math.nan, math.nan)


# Not frozen, because that makes each of millions of objects four times as expensive.
@dataclass(eq=False, slots=True)
class LabelledObject:
    """An object in an image.

    Attributes:
        polygon: (4, 2) float64 xy in pixels, in the order of the file; boxes with an angle run
            clockwise on screen from the corner that is upper left before they are turned.
        name: name of its class.
        difficult: 0, 1, or 2 for an object that tiling cut.
        score: score of a prediction, or None.
        heading: point x, y in pixels to which the object points, or None.
        line: 1-based line of the label file, None where objects have no line.
    """

    polygon: np.ndarray
    name: str
    difficult: int = 0
    score: float | None = None
    heading: tuple[float, float] | None = None
    line: int | None = None


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and its objects.

    Attributes:
        file_name: name relative to the folder of images, with ``/``.
        height: height in pixels.
        width: width in pixels.
        objects: objects of the image; empty if it shows none.
        label_file: file from which the objects were read; an empty text if no label file belongs
            to the image.
    """

    file_name: str
    height: int
    width: int
    objects: list[LabelledObject]
    label_file: str = ""


def make_image(
    name: str,
    size: tuple[int, int] | None,
    page: LabelPage,
    path: Path,
    classes: Sequence[str],
    report: LabelReport,
) -> LabelledImage | None:
    """Check the objects of a page and build its image.

    Args:
        name: name of the image.
        size: (height, width) of the image in pixels; None takes the size that the page states.
        page: page from the parser.
        path: path of the label file.
        classes: class names whose spelling the names of the file get.
        report: report that gets what is wrong.

    Returns:
        the image; None after a problem, if neither the image nor the page states the size.
    """
    known_size = size or page.size
    if known_size is None:
        report.add("label_entry", path, None, f"{name}: no width and height are stated")
        return None

    check_size(page, known_size, name, path, report)
    labels = read_page(page, path, classes, report)
    scores = repeat(None) if labels.scores is None else _or_none(labels.scores.tolist())
    heads = repeat(None) if labels.heads is None else map(_point_or_none, labels.heads.tolist())

    columns = (labels.polygons, labels.names, labels.difficult.tolist(), scores, heads)
    lines = (line or None for line in labels.lines.tolist())
    objects = [LabelledObject(*values) for values in zip(*columns, lines)]
    return LabelledImage(name, known_size[0], known_size[1], objects, str(path))


def check_size(
    stated: LabelPage | DotaLabels,
    size: tuple[int, int],
    name: str,
    path: Path,
    report: LabelReport,
) -> None:
    """Report a label file that states another size than its image has.

    Args:
        stated: content of the label file.
        size: (height, width) of the image in pixels.
        name: name of the image.
        path: path of the label file.
        report: report that gets the difference.
    """
    # Another size suggests that the labels belong to a resampled image, whose pixels do not fit.
    if stated.size is not None and stated.size != size:
        found, expected = (f"{width} x {height}" for height, width in (stated.size, size))
        message = f"{name}: {found} pixels, the image has {expected}"
        report.add("image_size", path, stated.size_line, message, "kept")


def read_page(
    page: LabelPage, path: Path, classes: Sequence[str], report: LabelReport
) -> DotaLabels:
    """Put the objects of a page into arrays and check them.

    Args:
        page: page from a parser.
        path: path of the label file.
        classes: class names whose spelling the names of the file get.
        report: report that gets what is wrong.

    Returns:
        the objects that can be used; scores and heads are NaN for objects without one, and None if
        no object has one.
    """
    if not page.rows:
        return replace(DotaLabels.empty(), size=page.size, size_line=page.size_line)

    corners, names, flags, scores, headings, lines = zip(*page.rows)
    spelling = {name: canonical_class_name(name, classes) for name in set(names)} if classes else {}
    labels = DotaLabels(
        np.array(corners, dtype=np.float64).reshape(-1, 4, 2),
        [spelling.get(name, name) for name in names],
        np.array(flags, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        np.array([one or _NOWHERE for one in headings], float) if any(headings) else None,
        None if set(scores) == {None} else np.array(scores, dtype=np.float64),
        page.size,
        page.size_line,
    )
    return check_polygons(labels, path, report)


def to_labels(image: LabelledImage) -> DotaLabels:
    """Put the objects of an image into arrays.

    Args:
        image: image with or without objects.

    Returns:
        the objects, without scores; with heads only if each object has a heading.
    """
    objects = image.objects
    heads = [one.heading for one in objects]
    return DotaLabels(
        np.array([one.polygon for one in objects], dtype=np.float64).reshape(-1, 4, 2),
        [one.name for one in objects],
        np.array([one.difficult for one in objects], dtype=np.int64),
        np.array([one.line or 0 for one in objects], dtype=np.int64),
        None if None in heads or not heads else np.array(heads, dtype=np.float64),
    )


def _or_none(values: Iterable[float]) -> list[float | None]:
    """Replace NaN, the only number that differs from itself, by None."""
    return [None if value != value else value for value in values]


def _point_or_none(point: list[float]) -> tuple[float, float] | None:
    return None if point[0] != point[0] else (point[0], point[1])
