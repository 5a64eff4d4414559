"""The DOTA text format: finding, reading, checking and writing label files. No Detectron2 needed.

A label file has up to two header lines (``imagesource:``, ``gsd:``) and one line
``x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]`` for each object, in pixels; class names may have
several words. The order of the vertices is kept, because annotators give the first one a meaning
(the front left of a plane or a ship).
OHD-SJTU writes the point of the object's head, ``x y``, between the vertices and the class.

Shapes: N objects of one image; polygons (N, 4, 2) xy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rsd2.data.file_names import is_side_file
from rsd2.data.windows.tiling import clip_to_window, visible_fractions
from rsd2.io.image_io import IMAGE_EXTENSIONS
from rsd2.io.text import TextError, read_lines

from .foreign import NORMALIZED_LIMIT, describe_folder, describe_format, guess_line
from .label_report import LabelReport
from .values import is_coordinate, parse_difficulty, parse_number, shortest_decimal

_HEADERS = ("imagesource:", "gsd:")
_ZERO_AREA = 1e-3
_NUMBER_STARTS = "0123456789.+-"
_NORMALIZED = describe_format("normalized labels (coordinates divided by width and height)")
_FLAGS = {"0": 0, "1": 1, "2": 2}


@dataclass
class DotaLabels:
    """The readable lines of one label file.

    Attributes:
        polygons: (N, 4, 2) float64 xy in pixels, vertices in the order of the file.
        names: N class names.
        difficult: (N,) int64, 0, 1 or 2.
        lines: (N,) int64, 1-based line numbers; 0 in formats whose objects have no line.
        heads: (N, 2) float64 xy in pixels, where the object points to; None in formats that do
            not say it.
        scores: (N,) float64, NaN for an object without one; None in formats that do not say it.
        size: (height, width) of the image in pixels, as the file states it; None if it does not.
        size_line: 1-based line of the size; None in formats without lines.
    """

    polygons: np.ndarray
    names: list[str]
    difficult: np.ndarray
    lines: np.ndarray
    heads: np.ndarray | None = None
    scores: np.ndarray | None = None
    size: tuple[int, int] | None = None
    size_line: int | None = None

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
        scores = None if self.scores is None else self.scores[keep]
        return replace(
            self,
            polygons=self.polygons[keep],
            names=names,
            difficult=self.difficult[keep],
            lines=self.lines[keep],
            heads=heads,
            scores=scores,
        )

    def line(self, index: int) -> int | None:
        """Return the 1-based line of an object, None in formats whose objects have no line."""
        return int(self.lines[index]) or None


def read_dota_labels(
    path: str | Path,
    report: LabelReport,
    *,
    with_heads: bool = False,
    class_names: Collection[str] = (),
) -> DotaLabels:
    """Read one label file; broken lines go to the report, the others are returned.

    Header lines, any encoding that `rsd2.io.text` reads, the line ends of all systems, blank lines,
    class names of several words and a missing difficult flag (then 0) are all allowed.
    Self-crossing quadrilaterals and repeated lines are reported and kept.

    Args:
        path: path of the text file.
        report: report that gets one problem for each broken line and for each line of another
            format.
        with_heads: whether the lines are OHD-SJTU's, with the head point after the vertices; class
            names may then be numbers.
        class_names: class names that are valid although they begin with a number.

    Returns:
        the objects; none if the file cannot be read, which is reported too.
    """
    report.label_files += 1
    labels = parse_dota_labels(path, report, with_heads=with_heads, class_names=class_names)
    return check_polygons(labels, path, report)


def parse_dota_labels(
    path: str | Path,
    report: LabelReport,
    *,
    with_heads: bool = False,
    class_names: Collection[str] = (),
) -> DotaLabels:
    """Read one label file as `read_dota_labels` does, but leave its shapes unchecked.

    Args:
        path: path of the text file.
        report: report that gets one problem for each broken line.
        with_heads: see `read_dota_labels`.
        class_names: see `read_dota_labels`.

    Returns:
        the objects; `check_polygons` checks them.
    """
    # Numbers before the class name.
    count = 10 if with_heads else 8
    try:
        text_lines = read_lines(path)
    except (OSError, TextError) as error:
        report.add_unreadable(path, error)
        text_lines = []

    rows, names, flags, lines = [], [], [], []
    for number, line in enumerate(text_lines, start=1):
        fields = line.split()
        if not fields:
            continue
        # Comparing one letter first spares most lines the search for a header.
        if fields[0][0] in "iIgG" and fields[0].lower().startswith(_HEADERS):
            if len(fields) > count:
                message = f"a header with {len(fields)} fields: a line end is lost"
                report.add("fields", path, number, message)
            continue

        try:
            values, name, flag = _parse_fields(fields, count)
            if "_" in line:  # which float() reads between digits, and no label file means
                values = tuple(map(parse_number, fields[:count]))
            if not is_coordinate(*values):
                raise _LineError("non_finite", f"coordinates {' '.join(fields[:count])}")
            # A class that begins with a number is nearly always a coordinate too many.
            if name[0] in _NUMBER_STARTS and not with_heads and name not in class_names:
                _refuse_number(name)
        except ValueError as error:
            kind, message = error.args if isinstance(error, _LineError) else ("number", str(error))
            foreign = guess_line(line)
            # The line's own format needs no hint; the problem of this line says what is wrong.
            if foreign and foreign != ("OHD-SJTU text" if with_heads else "DOTA text"):
                message = f"{message}: {describe_format(foreign)}"

                # A lost head point is more likely than another format, and has its own remedy.
                kind = kind if with_heads and foreign == "DOTA text" else "foreign_format"

            report.add(kind, path, number, message)
            continue

        rows.append(values)
        names.append(name)
        flags.append(flag)
        lines.append(number)

    numbers = np.array(rows, dtype=np.float64).reshape(-1, count)
    return DotaLabels(
        numbers[:, :8].reshape(-1, 4, 2),
        names,
        np.array(flags, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        numbers[:, 8:] if with_heads else None,
    )


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
        labels: labels of one image.
        size: (height, width) of the image in pixels.
        policy: ``"keep"``: report only; ``"clip"``: cut objects at the border (see
            ``clip_to_window``) and drop those wholly outside; ``"drop"``: drop both;
            ``"error"``: report only, the caller raises.
        path: the label file, for the report.
        report: report that gets a problem for each object beyond the tolerance.
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

    # Few objects lie at a border, and clipping polygons is slow: only these are measured.
    indices = np.flatnonzero(beyond)
    fractions = visible_fractions(labels.polygons[indices], window)
    keep = np.ones(len(labels), dtype=bool)
    for index, fraction in zip(indices.tolist(), fractions):
        kind = "crossing_border" if fraction > 0 else "outside_image"
        fate = {"keep": "kept", "error": "kept", "drop": "dropped"}.get(policy)
        fate = fate or ("clipped" if fraction > 0 else "dropped")
        keep[index] = fate != "dropped"
        message = (
            f"{labels.names[index]} ({_corners(labels, index)}): {fraction:.0%} of it lies inside "
            f"the image of {size[1]} x {size[0]} pixels"
        )
        report.add(kind, path, labels.line(index), message, fate)

    if policy == "clip":
        # Clipping leaves the caller's polygons alone.
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
        images_dir: image folder; hidden files and sub-folders are ignored.
        report: report that gets images that share a name.
        extensions: extensions in lower case, with dot; among images of one name the earlier one
            wins.

    Returns:
        name without extension -> path, sorted by name.

    Raises:
        FileNotFoundError: if the folder is not there or holds no image.
    """
    folder = Path(images_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no image folder {folder.absolute()}; check the path. Built-in datasets lie "
            "under $DETECTRON2_DATASETS, as rsd2/data/datasets/README.md shows."
        )

    rank = {extension: index for index, extension in enumerate(extensions)}
    candidates = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in rank and not is_side_file(path.name)
    ]
    images: dict[str, Path] = {}
    # By rank within a name, so that the first is the one to keep.
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
    labels_dir: str | Path,
    image_names: Iterable[str],
    report: LabelReport,
    *,
    extension: str = ".txt",
    only_of_images: bool = True,
) -> dict[str, Path]:
    """Find the label files that belong to images, and report the others.

    Args:
        labels_dir: folder of label files.
        image_names: names of the images, without extension.
        report: report that gets label files without an image, and the second label file of an
            image.
        extension: extension of the label files, lower case, with dot; the files may have it in any
            case.
        only_of_images: report label files without image; False for a folder that other images
            share.

    Returns:
        name of the image, without extension -> label file.

    Raises:
        FileNotFoundError: if the folder is not there or no label file belongs to any image; the
            message says what is there instead.
    """
    folder = Path(labels_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no label folder {folder}; check the path, or pass None for a set without "
            "labels."
        )

    found: dict[str, Path] = {}

    # The extension in lower case is sorted behind that in upper case, and wins.
    for path in sorted(folder.iterdir(), reverse=True):
        if path.suffix.lower() != extension or is_side_file(path.name):
            continue
        if found.setdefault(path.stem, path) != path:
            message = f"{found[path.stem].name} of the same name is used instead"
            report.add("duplicate_label", path, None, message)

    # No match at all means a wrong folder or format, so the message describes what is there.
    known = {name: found[name] for name in sorted(found.keys() & set(image_names))}
    if not known:
        raise FileNotFoundError(
            f"None of the {len(found)} label files (*{extension}) of {folder} has the name of an "
            f"image; expected for example labelTxt/P0000{extension} beside images/P0000.png. "
            f"{describe_folder(folder)}"
        )

    for name in sorted(found.keys() - known.keys()) if only_of_images else ():
        report.add("label_without_image", found[name], None, "no image of this name")
    return known


def check_dota_class_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Check that a label file can hold the class names.

    Args:
        class_names: class names, with or without blanks.

    Returns:
        the names.

    Raises:
        ValueError: if a name of several words ends in a number: a reader would take the number for
            the difficult flag of a line that has none.
    """
    names = tuple(class_names)
    wrong = [name for name in names if " " in name and _is_number(name.split()[-1])]
    if wrong:
        raise ValueError(
            f"Class names {wrong} end in a word that DOTA's format takes for the difficult flag; "
            "write them with a hyphen, as in 'class-1'."
        )

    return names


def format_dota_labels(
    polygons: np.ndarray, names: Sequence[str], difficult: np.ndarray, decimals: int = 3
) -> str:
    """Write objects as the lines of a label file, without header.

    Args:
        polygons: (N, 4, 2) xy pixels.
        names: N class names, see `check_dota_class_names`.
        difficult: (N,) integers.
        decimals: coordinates get up to so many.

    Returns:
        the text, one line for each object; empty without objects.
    """
    lines = []
    for polygon, name, flag in zip(polygons, names, difficult):
        numbers = " ".join(shortest_decimal(value, decimals) for value in polygon.reshape(-1))
        lines.append(f"{numbers} {name} {int(flag)}\n")
    return "".join(lines)


def check_polygons(labels: DotaLabels, path: str | Path, report: LabelReport) -> DotaLabels:
    """Drop objects that are not in pixels or have no area, and report doubtful ones.

    Args:
        labels: labels of one file.
        path: path of the file, for the report.
        report: report that gets dropped objects (coordinates divided by width and height, or four
            points on one line) and kept ones (self-crossing or repeated).

    Returns:
        the objects that are left.
    """
    if not len(labels):
        return labels
    is_small = np.abs(labels.polygons.reshape(-1, 8)).max(axis=1) <= NORMALIZED_LIMIT
    if is_small.any():  # but an object of one whole pixel may lie in the corner of an image
        is_small[is_small] = (labels.polygons[is_small] % 1 != 0).any(axis=(1, 2))
        for index in np.flatnonzero(is_small).tolist():
            message = f"{labels.names[index]} ({_corners(labels, index)}) lies in 0 to 1"
            report.add("foreign_format", path, labels.line(index), f"{message}: {_NORMALIZED}")
        labels = labels.select(~is_small)

    labels = _drop_without_area(labels, path, report)

    # Eight float64 as one value of 64 bytes: comparing bytes finds equal polygons in one pass.
    shapes = np.ascontiguousarray(labels.polygons).reshape(-1, 8).view("V64")[:, 0].tolist()
    objects = list(zip(labels.names, shapes))
    if len(set(objects)) == len(objects):
        return labels
    firsts: dict[tuple, int] = {}
    for index, one in enumerate(objects):
        first = firsts.setdefault(one, index)
        if first != index:
            before = f"on line {labels.lines[first]}" if labels.lines[first] else "before"
            message = f"{one[0]} ({_corners(labels, index)}) as {before}"
            report.add("duplicate_object", path, labels.line(index), message, "kept")

    return labels


class _LineError(ValueError):
    """Kind of problem and message of a broken line; any other ValueError is a broken number."""


def _parse_fields(fields: list[str], count: int) -> tuple[tuple[float, ...], str, int]:
    """Split a line into coordinates (8, or 10 with the head), class name and difficult flag."""
    if len(fields) <= count:
        message = f"{len(fields)} fields instead of {count + 1} or more: {' '.join(fields)[:120]!r}"
        # The kinds differ because their remedies show different lines.
        raise _LineError("fields" if count == 8 else "fields_with_head", message)
    values = tuple(map(float, fields[:count]))
    if len(fields) == count + 1:
        return values, fields[count], 0

    last = fields[-1]
    flag = _FLAGS.get(last)
    if flag is None:
        if last[0] not in _NUMBER_STARTS or not _is_number(last):
            return values, " ".join(fields[count:]), 0
        # A number at the end that is no flag is an error, not a word of the name.
        try:
            flag = parse_difficulty(last)
        except ValueError:
            raise _LineError("difficult_flag", f"difficult flag {last!r}") from None

    return values, " ".join(fields[count:-1]), flag


def _refuse_number(name: str) -> None:
    """Raise if a class name begins with a number: fields are missing, or there are too many."""
    if _is_number(name.split()[0]):
        raise _LineError("class_number", f"class {name!r} is a number or begins with one")


def _drop_without_area(labels: DotaLabels, path: str | Path, report: LabelReport) -> DotaLabels:
    """Leave out objects whose four points lie on one line, and report self-crossing ones."""
    x0, y0, x1, y1, x2, y2, x3, y3 = labels.polygons.reshape(-1, 8).T

    # Twice the signed areas of the four triangles of vertices. Written out, because most files
    # hold a few objects, and each call into NumPy costs more than its numbers.
    a012 = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    a013 = (x1 - x0) * (y3 - y0) - (y1 - y0) * (x3 - x0)
    a023 = (x2 - x0) * (y3 - y0) - (y2 - y0) * (x3 - x0)
    a123 = (x2 - x1) * (y3 - y1) - (y2 - y1) * (x3 - x1)
    largest = np.maximum(np.maximum(abs(a012), abs(a013)), np.maximum(abs(a023), abs(a123)))
    keep = largest / 2 > _ZERO_AREA

    # Two sides cross if each one's ends lie on different sides of the other.
    crossing = (a012 * a013 < 0) & (a023 * a123 < 0)
    crossing |= (a123 * a012 < 0) & (a013 * a023 < 0)
    if keep.all() and not crossing.any():
        return labels
    # A self-crossing quadrilateral is still an object, drawn with two vertices swapped.
    for index in np.flatnonzero(crossing | ~keep).tolist():
        kind, fate = ("self_crossing", "kept") if keep[index] else ("zero_area", "dropped")
        message = f"{labels.names[index]} ({_corners(labels, index)})"
        report.add(kind, path, labels.line(index), message, fate)

    return labels.select(keep)


def _corners(labels: DotaLabels, index: int) -> str:
    """Return the eight numbers of an object, for messages."""
    return " ".join(f"{value:g}" for value in labels.polygons[index].reshape(-1))


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True
