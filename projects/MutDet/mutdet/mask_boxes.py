"""From masks to rotated boxes: the smallest rectangle of one component, clipped to the image.

Pixel (x, y) is the square [x, x + 1] x [y, y + 1], as everywhere in rsd2, and a mask is the union
of its pixels' squares. A single pixel is a box of 1 x 1.

Shapes: K masks, P points, H, W height and width of the image; h, w those of a mask's window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import shapely
import torch

from rsd2.structures import canonicalize, corners_to_boxes

from .proposals import MaskProposal


class MaskBoxes(NamedTuple):
    """Boxes of masks.

    Args:
        boxes: (K', 5) float32 canonical boxes, pixels and degrees, sides > 0; K' <= K.
        scores: (K',) float32 scores of the proposals.
        areas: (K',) float32 pixels of the components.
        degenerate: number of masks without a box: without any pixel, or without area as
            ``official`` measures it.
    """

    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    degenerate: int


def masks_to_boxes(
    proposals: Sequence[MaskProposal], image_size: tuple[int, int], *, official: bool = False
) -> MaskBoxes:
    """Enclose masks in rotated boxes.

    The largest connected component of a mask (neighbours share a side or a corner; of equal ones
    the upper one) is enclosed by the rectangle of the smallest area around its pixels' squares.
    Corners outside the image are moved onto its border, on all sides, and the smallest rectangle
    around the four points is the box. (The intersection with the image would change nothing: the
    smallest rectangle around it is the same one, since all of the mask lies in the image.)

    Args:
        proposals: K masks with scores.
        image_size: (H, W), pixels.
        official: whether to do as MutDet's script does (``step1_3_mask_to_poly``): the component
            with the most boundary points instead of the largest one, the rectangle around the
            indices of the boundary pixels (so half a pixel up and left, and one pixel too small),
            corners moved at the left and upper border only, and rounded to a tenth.

    Returns:
        The boxes, in the order of the masks.
    """
    height, width = image_size
    chosen = [_component(proposal.mask, official) for proposal in proposals]
    present = [k for k, component in enumerate(chosen) if component is not None]
    if not present:
        return MaskBoxes(*_nothing(), len(proposals))

    offsets = [(proposals[k].x, proposals[k].y) for k in present]
    points = [chosen[k][0] + offset for k, offset in zip(present, offsets)]
    corners = np.stack([minimum_area_rectangle(p) for p in points])
    # The official script clips on the left and upper border only.
    high = (np.inf, np.inf) if official else (width, height)
    corners = np.clip(corners, 0, high)
    if official:
        corners = np.round(corners, 1)

    boxes = canonicalize(corners_to_boxes(torch.from_numpy(corners)).float()).numpy()
    scores = np.array([proposals[k].score for k in present], dtype=np.float32)
    areas = np.array([chosen[k][1] for k in present], dtype=np.float32)

    # A line of pixels has no area by the official measure, and no canonical box either.
    good = boxes[:, 3] > 0
    return MaskBoxes(
        boxes[good], scores[good], areas[good], len(proposals) - int(np.count_nonzero(good))
    )


def minimum_area_rectangle(points: np.ndarray) -> np.ndarray:
    """Compute the corners of the rectangle of the smallest area around points, by GEOS.

    Args:
        points: (P, 2) xy, P >= 1.

    Returns:
        (4, 2) float64 corners in order around the rectangle, a segment or a point if the
        points are on a line or equal.
    """
    shape = shapely.oriented_envelope(shapely.multipoints(np.asarray(points, dtype=np.float64)))
    corners = shapely.get_coordinates(shape)
    if len(corners) >= 4:
        return corners[:4]
    # GEOS returns a segment or a point instead of a flat rectangle.
    return corners[[0, -1, -1, 0]]


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 5), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32)


def _component(mask: np.ndarray, official: bool) -> tuple[np.ndarray, int] | None:
    """Return points (P, 2) xy that span one component of a mask (h, w), and its pixels or None."""
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    if count < 2:
        return None

    if not official:
        # Label 0 is the background.
        index = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
        return _square_corners(labels == index), int(statistics[index, cv2.CC_STAT_AREA])

    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)[:, 0]
    index = labels[contour[0, 1], contour[0, 0]]
    return contour.astype(np.float64), int(statistics[index, cv2.CC_STAT_AREA])


def _square_corners(component: np.ndarray) -> np.ndarray:
    """Return the corners (P, 2) xy of the outermost pixels of each row, which span the hull."""
    rows = np.flatnonzero(component.any(axis=1))
    first = component[rows].argmax(axis=1)
    last = component.shape[1] - component[rows, ::-1].argmax(axis=1)
    xs = np.concatenate([first, first, last, last])
    ys = np.concatenate([rows, rows + 1, rows, rows + 1])
    return np.stack([xs, ys], axis=1).astype(np.float64)
