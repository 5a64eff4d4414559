"""Rows of tracks in the two dialects of VISO's ``gt.txt``.

Commas: ``frame,id,x,y,width,height,...`` (car, train); blanks: ``frame id x1 y1 x2 y2 ...`` (plane,
ship). Frames count from 1; what stands behind the box is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rsd2.io.text import read_lines

from .foreign import NORMALIZED_LIMIT, describe_format, guess_line, is_normalized
from .label_report import LabelReport
from .values import LARGEST_COORDINATE, is_coordinate, parse_number


class MotRow(NamedTuple):
    """A box of a track in one frame.

    Args:
        frame: from 1.
        track: number of the track.
        box: x, y, width, height, pixels.
        line: 1-based, of the file.
    """

    frame: int
    track: int
    box: tuple[float, float, float, float]
    line: int


def read_mot_rows(path: str | Path, report: LabelReport) -> list[MotRow]:
    """Read a file of rows; each row says by its separator which dialect it is.

    Args:
        path: of the file.
        report: gets every row that is wrong: blank values, all zeros, fractions for frame or
            track, no area, another format; and, kept, those that are there twice.

    Returns:
        the rows in their order.

    Raises:
        FileNotFoundError: if there is no such file.
        TextError: if it is no text.
    """
    path = Path(path)
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file of tracks {path}; put it there.") from None
    report.label_files += 1
    counts = [_num_fields(line) for line in (lines[0], lines[-1])]
    if lines[-1].strip() and counts[1] < counts[0]:
        message = f"{lines[-1]!r}: {counts[1]} fields instead of {counts[0]}: the file is cut off"
        report.add("mot_row", path, len(lines), message)
        lines[-1] = ""  # its last number may have lost digits
    rows: list[MotRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parse_row(line, number)
        except ValueError as error:
            foreign = guess_line(line)
            kind = "foreign_format" if foreign not in ("", "rows of tracks") else "mot_row"
            looks = f": {describe_format(foreign)}" if kind == "foreign_format" else ""
            report.add(kind, path, number, f"{line.strip()[:120]!r}: {error}{looks}")
            continue
        if row.box[2] <= 0 or row.box[3] <= 0:
            report.add("box_without_area", path, number, f"{line.strip()!r}")
            continue
        rows.append(row)

    if len({row[:3] for row in rows}) < len(rows):
        firsts: dict[tuple, int] = {}
        for row in rows:
            first = firsts.setdefault(row[:3], row.line)
            if first != row.line:
                message = f"track {row.track} in frame {row.frame} as on line {first}"
                report.add("duplicate_object", path, row.line, message, "kept")
    report.objects += len(rows)
    return rows


def _num_fields(line: str) -> int:
    return len(line.split("," if "," in line else None))


def _parse_row(line: str, number: int) -> MotRow:
    """A row of either dialect; a ValueError says what is wrong."""
    has_commas = "," in line
    fields = line.split(",") if has_commas else line.split()
    # What stands behind the box is not used, but words there show that this is no row of tracks.
    values = list(map(float, fields))
    if "_" in line:  # which float() reads between digits, and no file of tracks means
        values = list(map(parse_number, fields))
    if not 6 <= len(values) <= 10:
        raise ValueError(f"{len(values)} numbers instead of 6 to 10")
    frame, track, a, b, c, d = values[:6]
    total = abs(track) + abs(a) + abs(b) + abs(c) + abs(d)  # a fast test of the usual case
    if not frame >= 1 or not (total < LARGEST_COORDINATE or is_coordinate(track, a, b, c, d)):
        raise ValueError("no frame or box")
    if frame % 1 or track % 1:
        raise ValueError(f"frame {fields[0]} or track {fields[1]} is no whole number")
    if c <= NORMALIZED_LIMIT and is_normalized((a, b, c, d)):
        raise ValueError("a box whose numbers lie in 0 to 1, as if divided by width and height")
    box = (a, b, c, d) if has_commas else (a, b, c - a, d - b)
    return MotRow(int(frame), int(track), box, number)
