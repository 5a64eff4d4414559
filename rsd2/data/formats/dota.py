"""The DOTA text format: finding, reading, checking and writing label files. No Detectron2 needed.

A label file has up to two header lines (``imagesource:``, ``gsd:``) and one line
``x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]`` for each object, in pixels; the order of the vertices
is kept, because annotators give the first one a meaning (the front left of a plane or a ship).
OHD-SJTU writes the point of the object's head, ``x y``, between the vertices and the class.

Shapes: N objects of one image; polygons (N, 4, 2) xy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rsd2.data.windows.tiling import clip_to_window, visible_fractions
from rsd2.io.image_io import IMAGE_EXTENSIONS
from rsd2.io.text import TextError, read_lines

from .label_report import LabelReport
from .values import parse_number

_HEADERS = ("imagesource:", "gsd:")
_ZERO_AREA = 1e-3


@dataclass
class DotaLabels:
    """The readable lines of one label file.

    Attributes:
        polygons: (N, 4, 2) float64 xy in pixels, vertices in the order of the file.
        names: N class names.
        difficult: (N,) int64, 0, 1 or 2.
        lines: (N,) int64, 1-based line numbers.
        heads: (N, 2) float64 xy in pixels, where the object points to; None in formats that do
            not say it.
    """

    polygons: np.ndarray
    names: list[str]
    difficult: np.ndarray
    lines: np.ndarray
    heads: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.names)

    @classmethod
    def empty(cls) -> DotaLabels:
        """Return the labels of an image without objects."""
        return cls(np.zeros((0, 4, 2)), [], np.zeros(0, np.int64), np.zeros(0, np.int64))

    def select(self, keep: np.ndarray) -> DotaLabels:
        """Return some of the objects.

        Args:
            keep: (N,) bool.

        Returns:
            those objects, in order.
        """
        names = [name for name, chosen in zip(self.names, keep) if chosen]
        heads = None if self.heads is None else self.heads[keep]
        return DotaLabels(self.polygons[keep], names, self.difficult[keep], self.lines[keep], heads)


def read_dota_labels(
    path: str | Path, report: LabelReport, *, with_heads: bool = False
) -> DotaLabels:
    """Read one label file; broken lines go to the report, the others are returned.

    Header lines, a byte-order mark, carriage returns, blank lines and a missing difficult flag
    (then 0) are all allowed. Self-crossing quadrilaterals are reported and kept.

    Args:
        path: of the text file.
        report: gets one problem for each broken line.
        with_heads: lines are OHD-SJTU's, with the head point after the vertices.

    Returns:
        the objects; none if the file cannot be read, which is reported too.
    """
    count = 10 if with_heads else 8
    try:
        text_lines = read_lines(path)
    except (OSError, TextError) as error:
        report.add_unreadable(path, error)
        text_lines = []
    report.label_files += 1
    rows, names, flags, lines = [], [], [], []
    for number, line in enumerate(text_lines, start=1):
        fields = line.split()
        if not fields or fields[0].lower().startswith(_HEADERS):
            continue
        parsed = _parse_fields(fields, count, path, number, report)
        if parsed is not None:
            rows.append(parsed[0])
            names.append(fields[count])
            flags.append(parsed[1])
            lines.append(number)
    numbers = np.array(rows, dtype=np.float64).reshape(-1, count)
    labels = DotaLabels(
        numbers[:, :8].reshape(-1, 4, 2),
        names,
        np.array(flags, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        numbers[:, 8:] if with_heads else None,
    )
    return drop_without_area(labels, path, report)


def apply_border_policy(
    labels: DotaLabels,
    size: tuple[int, int],
    policy: str,
    path: str | Path,
    report: LabelReport,
    tolerance: float = 1.0,
) -> DotaLabels:
    """Report objects that leave their image, and keep, clip or drop them.

    Args:
        labels: of one image.
        size: (height, width) of the image in pixels.
        policy: ``"keep"``: report only; ``"clip"``: cut objects at the border (see
            ``clip_to_window``) and drop those wholly outside; ``"drop"``: drop both;
            ``"error"``: report only, the caller raises.
        path: the label file, for the report.
        report: gets a problem for each object beyond the tolerance.
        tolerance: pixels by which a vertex may lie outside, because annotators click there.

    Returns:
        the remaining objects.
    """
    window = np.array([0, 0, size[1], size[0]], dtype=np.float64)
    low = labels.polygons.min(axis=1, initial=np.inf) if len(labels) else np.zeros((0, 2))
    high = labels.polygons.max(axis=1, initial=-np.inf) if len(labels) else np.zeros((0, 2))
    beyond = ((low < -tolerance) | (high > window[2:] + tolerance)).any(axis=1)
    if not beyond.any():
        return labels
    indices = np.flatnonzero(beyond)
    fractions = visible_fractions(labels.polygons[indices], window)
    keep = np.ones(len(labels), dtype=bool)
    for index, fraction in zip(indices, fractions):
        kind = "crossing_border" if fraction > 0 else "outside_image"
        fate = {"keep": "kept", "error": "kept", "drop": "dropped"}.get(policy)
        fate = fate or ("clipped" if fraction > 0 else "dropped")
        keep[index] = fate != "dropped"
        corners = " ".join(f"{value:g}" for value in labels.polygons[index].reshape(-1))
        message = (
            f"{labels.names[index]} ({corners}): {fraction:.0%} of it lies inside the image of "
            f"{size[1]} x {size[0]} pixels"
        )
        report.add(kind, path, int(labels.lines[index]), message, fate)
    if policy == "clip":
        polygons = labels.polygons.copy()
        polygons[indices] = clip_to_window(polygons[indices], window)
        labels = replace(labels, polygons=polygons)
    return labels.select(keep)


def find_images(
    images_dir: str | Path,
    report: LabelReport,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
) -> dict[str, Path]:
    """List the images of a folder by name.

    Args:
        images_dir: the folder; hidden files and sub-folders are not looked at.
        report: gets images of equal name.
        extensions: lower case, with dot; of images of equal name the earlier extension wins.

    Returns:
        name without extension -> path, sorted by name.

    Raises:
        FileNotFoundError: if the folder is not there or holds no image.
    """
    folder = Path(images_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no image folder {folder.absolute()}; check the path. Built-in data sets lie "
            "under $DETECTRON2_DATASETS, as rsd2/data/datasets/README.md shows."
        )
    rank = {extension: index for index, extension in enumerate(extensions)}
    candidates = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in rank and not path.name.startswith(".")
    ]
    images: dict[str, Path] = {}
    for path in sorted(candidates, key=lambda p: (p.stem, rank[p.suffix.lower()], p.name)):
        if path.stem in images:
            message = f"{images[path.stem].name} of the same name is used instead"
            report.add("duplicate_image", path, None, message)
        else:
            images[path.stem] = path
    if not images:
        raise FileNotFoundError(
            f"The image folder {folder} holds no file ending in {', '.join(extensions)}."
        )
    report.images += len(images)
    return images


def find_labels(
    labels_dir: str | Path, image_names: Iterable[str], report: LabelReport
) -> set[str]:
    """List the label files that belong to images, and report the others.

    Args:
        labels_dir: folder of ``.txt`` files.
        image_names: names of the images, without extension.
        report: gets label files without image.

    Returns:
        names without extension.

    Raises:
        FileNotFoundError: if the folder is not there or no label file belongs to any image.
    """
    folder = Path(labels_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no label folder {folder}; check the path, or pass None for a set without "
            "labels."
        )
    names = {p.stem for p in folder.glob("*.txt") if not p.name.startswith(".")}
    known = names & set(image_names)
    if not known:
        raise FileNotFoundError(
            f"None of the {len(names)} label files of {folder} has the name of an image; expected "
            "for example labelTxt/P0000.txt beside images/P0000.png."
        )
    for name in sorted(names - known):
        report.add("label_without_image", folder / f"{name}.txt", None, "no image of this name")
    return known


def check_dota_class_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Refuse class names that a label file cannot hold.

    Args:
        class_names: with or without blanks.

    Returns:
        the names.

    Raises:
        ValueError: if a name of several words ends in a number, which a line without difficult flag
            would give away to it.
    """
    names = tuple(class_names)
    wrong = [name for name in names if " " in name and _is_number(name.split()[-1])]
    if wrong:
        raise ValueError(
            f"Class names {wrong} end in a word that DOTA's format takes for the difficult flag; "
            "write them with a hyphen, as in 'class-1'."
        )
    return names


def format_dota_labels(polygons: np.ndarray, names: Sequence[str], difficult: np.ndarray) -> str:
    """Write objects as the lines of a label file, without header.

    Args:
        polygons: (N, 4, 2) xy pixels; written with up to three decimals.
        names: N class names, see `check_dota_class_names`.
        difficult: (N,) integers.

    Returns:
        the text, one line for each object; empty without objects.
    """
    lines = []
    for polygon, name, flag in zip(polygons, names, difficult):
        numbers = " ".join(_shortest(value) for value in polygon.reshape(-1))
        lines.append(f"{numbers} {name} {int(flag)}\n")
    return "".join(lines)


def _parse_fields(
    fields: list[str], count: int, path: str | Path, number: int, report: LabelReport
) -> tuple[list[float], int] | None:
    """Coordinates (8, or 10 with the head) and difficult flag of a line, or None if broken."""
    if len(fields) not in (count + 1, count + 2):
        text = " ".join(fields)[:120]
        message = f"{len(fields)} fields instead of {count + 1} or {count + 2}: {text!r}"
        report.add("fields" if count == 8 else "fields_with_head", path, number, message)
        return None
    try:
        values = [float(field) for field in fields[:count]]
    except ValueError as error:
        report.add("number", path, number, str(error))
        return None
    if not all(map(math.isfinite, values)):
        report.add("non_finite", path, number, f"coordinates {' '.join(fields[:count])}")
        return None
    if len(fields) == count + 2 and fields[-1] not in ("0", "1", "2"):
        report.add("difficult_flag", path, number, f"difficult flag {fields[-1]!r}")
        return None
    return values, int(fields[-1]) if len(fields) == count + 2 else 0


def drop_without_area(labels: DotaLabels, path: str | Path, report: LabelReport) -> DotaLabels:
    """Leave out the objects whose four points lie on one line.

    Args:
        labels: of one file.
        path: of the file, for the report.
        report: gets the objects without area, dropped, and self-crossing ones, kept.

    Returns:
        the objects with an area.
    """
    points = labels.polygons
    # Twice the signed areas of the four triangles of vertices.
    a012, a013, a023, a123 = (
        _cross(points[:, j] - points[:, i], points[:, k] - points[:, i])
        for i, j, k in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))
    )
    largest = np.maximum(np.maximum(abs(a012), abs(a013)), np.maximum(abs(a023), abs(a123)))
    keep = largest / 2 > _ZERO_AREA
    # Two sides cross if each one's ends lie on different sides of the other.
    crossing = (a012 * a013 < 0) & (a023 * a123 < 0)
    crossing |= (a123 * a012 < 0) & (a013 * a023 < 0)
    for index in np.flatnonzero(crossing | ~keep):
        corners = " ".join(f"{value:g}" for value in points[index].reshape(-1))
        kind, fate = ("self_crossing", "kept") if keep[index] else ("zero_area", "dropped")
        message = f"{labels.names[index]} ({corners})"
        report.add(kind, path, int(labels.lines[index]), message, fate)
    return labels if keep.all() else labels.select(keep)


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (N,) of vectors (N, 2)."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _shortest(value: float) -> str:
    """At most three decimals, no trailing zeros, no negative zero."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
