"""Masks as runs of pixels (RLE) and the rectangles around them.

COCO counts runs down the columns and begins with pixels outside the object. Its text packs the
counts, six bits a character; from the fourth count on, each is the difference to the last but one.
pycocotools decodes whole images and trusts its input. This module unpacks only the lines of the
object, and raises an error for a damaged mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .rectangles import rectangle_corners, smallest_rectangle
from .values import parse_whole

LARGEST_PART = 1 << 30
"""Greatest number of pixels unpacked of one mask; a mask that needs more is a damaged file."""


def unpack_counts(text: str) -> list[int]:
    """Read COCO's compressed run lengths.

    Args:
        text: text of ``counts``.

    Returns:
        lengths of the runs, alternately outside and inside.

    Raises:
        ValueError: for characters that no mask has, or text that is cut off.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"a mask has no character {character!r} there")

        # Five bits of the number, the lowest first; the sixth bit says whether more follow.
        value |= (bits & 31) << shift
        shift += 5

        if bits & 32:
            continue

        if bits & 16:  # the sign
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0

    if shift:
        raise ValueError("the text of the mask was cut off")
    return counts


def mask_corners(counts: Any, length: int, number: int, *, by_columns: bool) -> list[float]:
    """Return the corners of the smallest rectangle around the largest part of a mask.

    Args:
        counts: lengths of the runs, alternately outside and inside; whole numbers.
        length: number of pixels in a line, which is a column or a row as ``by_columns`` says.
        number: number of lines.
        by_columns: whether runs go down the columns, as COCO's do, or along the rows, as CVAT's.

    Returns:
        x1, y1, ... y4 in pixels. Pixels are squares: the one in the upper left corner of the image
        reaches from 0 to 1.

    Raises:
        ValueError: for counts that do not fill the image, or an empty mask.
    """
    if length < 1 or number < 1:
        raise ValueError(f"a mask of {length} x {number} pixels is empty or its size is negative")

    runs = [parse_whole(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != length * number or length * number >= 1 << 62:
        raise ValueError(f"the runs of the mask do not fill {length} x {number} pixels")

    ends = np.cumsum(np.array(runs, dtype=np.int64))
    starts, stops = ends[:-1:2], ends[1::2]
    # Runs of length 0 hold no pixel, but would count as the first or last place of the object.
    is_some = stops > starts
    starts, stops = starts[is_some], stops[is_some]
    if not len(starts):
        raise ValueError("the mask is empty")

    across, along = _largest_part(starts, stops, length)
    xy = (across, along) if by_columns else (along, across)
    # The hull contains the pixels' whole squares, not just their centres.
    corners = [np.stack([xy[0] + dx, xy[1] + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]
    return rectangle_corners(*smallest_rectangle(np.concatenate(corners).astype(float)))


def coco_mask_corners(segmentation: dict[str, Any]) -> list[float]:
    """Return the corners of the smallest rectangle around the largest part of a COCO mask.

    Args:
        segmentation: ``size`` [height, width] and ``counts``, a list or the compressed text.

    Returns:
        x1, y1, ... y4 in pixels.

    Raises:
        ValueError: see `mask_corners` and `unpack_counts`.
        KeyError: if ``size`` or ``counts`` is missing.
        TypeError: if one of them has another type.
    """
    height, width = map(parse_whole, segmentation["size"])
    counts: Sequence[Any] | str = segmentation["counts"]
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    return mask_corners(counts, height, width, by_columns=True)


def _largest_part(
    starts: np.ndarray, stops: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the end pixels of each line of the largest part, across and along the runs."""
    first, last = int(starts[0]) // length, int(stops[-1] - 1) // length
    if (last - first + 1) * length > LARGEST_PART:
        raise ValueError(f"the mask spans {last - first + 1} lines of {length} pixels")

    # Runs may pass the end of a line, so +1 and -1 mark their ends and a running sum fills them.
    lines = np.zeros((last - first + 1) * length + 1, dtype=np.int8)
    lines[starts - first * length] += 1
    lines[stops - first * length] -= 1
    inside = np.cumsum(lines[:-1], dtype=np.int8).reshape(-1, length).astype(np.uint8)

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    part = labels == largest

    # The two ends of each line suffice for the hull, and are few where pixels are millions.
    rows = np.flatnonzero(part.any(axis=1))
    low = part[rows].argmax(axis=1)
    high = length - 1 - part[rows, ::-1].argmax(axis=1)

    return np.concatenate([rows, rows]) + first, np.concatenate([low, high])
