"""Masks as runs of pixels (RLE) and the rectangles around them.

COCO counts runs down the columns, beginning with pixels outside; as text, the counts are packed six
bits a character, from the fourth on as differences to the last but one. pycocotools decodes whole
images and trusts what it is given; here only what is around the object is unpacked, and a damaged
mask is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .rectangles import rectangle_corners, smallest_rectangle
from .values import parse_whole

LARGEST_PART = 1 << 30
"""Pixels. What is unpacked of a mask at once; more is no object but a damaged file."""


def unpack_counts(text: str) -> list[int]:
    """Read COCO's compressed run lengths.

    Args:
        text: characters of ``counts``.

    Returns:
        lengths of the runs, alternately outside and inside.

    Raises:
        ValueError: for characters that no mask has, or text that was cut off.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"a mask has no character {character!r} there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more characters of this number follow
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0

    if shift:
        raise ValueError("the text of the mask was cut off")
    return counts


def mask_corners(counts: Any, length: int, number: int, *, by_columns: bool) -> list[float]:
    """Corners of the smallest rectangle around the largest part of a mask.

    Args:
        counts: lengths of the runs, alternately outside and inside; whole numbers.
        length: pixels of a column, or of a row: the unit along which runs go.
        number: of the columns, or of the rows.
        by_columns: runs go down the columns, as COCO's do; else along the rows, as CVAT's.

    Returns:
        x1, y1, ... y4 in pixels. Pixels are squares: that in the upper left corner of the image
        reaches from 0 to 1.

    Raises:
        ValueError: for counts that do not fill the image, or an empty mask.
    """
    if length < 1 or number < 1:
        raise ValueError(f"a mask of {length} x {number} pixels")
    runs = [parse_whole(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != length * number or length * number >= 1 << 62:
        raise ValueError(f"the runs of the mask do not fill {length} x {number} pixels")

    ends = np.cumsum(np.array(runs, dtype=np.int64))
    starts, stops = ends[:-1:2], ends[1::2]
    is_some = stops > starts
    starts, stops = starts[is_some], stops[is_some]
    if not len(starts):
        raise ValueError("the mask is empty")

    across, along = _largest_part(starts, stops, length)
    xy = (across, along) if by_columns else (along, across)
    # The hull of the pixels' squares, not of their centres.
    corners = [np.stack([xy[0] + dx, xy[1] + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]
    return rectangle_corners(*smallest_rectangle(np.concatenate(corners).astype(float)))


def coco_mask_corners(segmentation: dict[str, Any]) -> list[float]:
    """Corners of the smallest rectangle around the largest part of a mask of COCO.

    Args:
        segmentation: ``size`` [height, width] and ``counts``, a list or the compressed text.

    Returns:
        x1, y1, ... y4 in pixels.

    Raises:
        ValueError: see `mask_corners` and `unpack_counts`.
        KeyError: if one of the two is missing.
        TypeError: if one of them is of another kind.
    """
    height, width = map(parse_whole, segmentation["size"])
    counts: Sequence[Any] | str = segmentation["counts"]
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    return mask_corners(counts, height, width, by_columns=True)


def _largest_part(
    starts: np.ndarray, stops: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, across and along the runs, of the largest connected part, each line's two ends."""
    first, last = int(starts[0]) // length, int(stops[-1] - 1) // length
    if (last - first + 1) * length > LARGEST_PART:
        raise ValueError(f"the mask spans {last - first + 1} lines of {length} pixels")
    lines = np.zeros((last - first + 1) * length + 1, dtype=np.int8)
    lines[starts - first * length] += 1
    lines[stops - first * length] -= 1
    inside = np.cumsum(lines[:-1], dtype=np.int8).reshape(-1, length).astype(np.uint8)

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    part = labels == largest
    rows = np.flatnonzero(part.any(axis=1))
    low = part[rows].argmax(axis=1)
    high = length - 1 - part[rows, ::-1].argmax(axis=1)

    return np.concatenate([rows, rows]) + first, np.concatenate([low, high])
