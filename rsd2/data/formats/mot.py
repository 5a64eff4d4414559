"""Rows of tracks in the two dialects of VISO's ``gt.txt``.

Commas: ``frame,id,x,y,width,height,...`` (car, train); blanks: ``frame id x1 y1 x2 y2 ...`` (plane,
ship). Frames count from 1; what stands behind the box is not read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from rsd2.io.text import read_lines

from .label_report import LabelReport


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
        report: gets every row that is wrong: blank values, all zeros, no area.

    Returns:
        the rows in their order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no text.
    """
    path = Path(path)
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file of tracks {path}; put it there.") from None
    report.label_files += 1
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        commas = "," in line
        fields = [field.strip() for field in line.split(",")] if commas else line.split()
        try:
            frame, track, *values = (float(field) for field in fields[:6])
            a, b, c, d = values
        except ValueError as error:
            report.add("mot_row", path, number, f"{line.strip()!r}: {error}")
            continue
        if not all(map(math.isfinite, (frame, track, a, b, c, d))) or frame < 1 or frame % 1:
            report.add("mot_row", path, number, f"{line.strip()!r}: no frame or box")
            continue
        box = (a, b, c, d) if commas else (a, b, c - a, d - b)
        if box[2] <= 0 or box[3] <= 0:
            report.add("box_without_area", path, number, f"{line.strip()!r}")
            continue
        rows.append(MotRow(int(frame), int(track), box, number))
    report.objects += len(rows)
    return rows
