"""Best-overlapping ground-truth polygon of every detection, exact and in bounded memory.

Overlaps are integrals here. Overlay of polygons as GEOS does it decides edge by edge what lies
inside; of edges that nearly coincide some of its decisions are wrong, and the intersection of two
equal polygons comes out empty, or that of two neighbours as one of them (3 in a million pairs).

Shapes: G ground-truth polygons of V vertices, D detections, K candidate pairs, N regions, R
vertices of a ring. Groups are integers; a detection is compared with the ground truth of its own
group alone (one group per image and class).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
import torch

from rsd2.ops import paired_box_polygon_iou
from rsd2.ops.box_iou_rotated_reference import NO_OVERLAP
from rsd2.structures import boxes_to_corners

MAX_PAIRS_AT_ONCE = 1 << 20
_IOU_BLOCK = 1 << 12


@dataclass(frozen=True)
class Regions:
    """Plane regions ready for overlap tests; make them with the two class methods.

    Attributes:
        boxes: (N, 5) float64 rotated boxes, or None if the regions are general polygons.
        polygons: (N, V, 2) float64 vertices, pixels.
        areas: (N,) float64, pixels squared; 0 for a degenerate region, which overlaps nothing.
        bounds: (N, 4) float64, x0, y0, x1, y1.
        repaired: rings (R, 2) by region number for the self-crossing polygons: the borders of the
            area that ``shapely.make_valid`` finds inside the outline, holes running against it.
    """

    boxes: np.ndarray | None
    polygons: np.ndarray
    areas: np.ndarray
    bounds: np.ndarray
    repaired: dict[int, list[np.ndarray]]

    @classmethod
    def from_boxes(cls, boxes: np.ndarray) -> Regions:
        """Make regions of rotated boxes.

        Args:
            boxes: (N, 5) cx, cy, w, h in pixels, angle in degrees counter-clockwise on screen;
                a box without two positive sides is degenerate.

        Returns:
            The regions.
        """
        boxes = np.ascontiguousarray(boxes, dtype=np.float64).reshape(-1, 5)
        corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
        sides = boxes[:, 2:4]
        areas = np.where((sides > 0).all(axis=1), sides.prod(axis=1), 0.0)
        return cls(boxes, corners, areas, _bounds(corners), {})

    @classmethod
    def from_polygons(cls, polygons: np.ndarray) -> Regions:
        """Make regions of polygons; self-crossing ones are repaired, flat ones are degenerate.

        Args:
            polygons: (N, V, 2) pixels, finite, either orientation.

        Returns:
            The regions.
        """
        polygons = np.ascontiguousarray(polygons, dtype=np.float64)
        x, y = (polygons - polygons[:, :1]).transpose(2, 0, 1)
        areas = abs(_twice_the_area(x, y)) / 2

        doubtful = np.flatnonzero(~_surely_simple(x, y))
        geometries = shapely.polygons(polygons[doubtful])
        repaired = {}
        for position in np.flatnonzero(~shapely.is_valid(geometries)):
            index = int(doubtful[position])
            valid = shapely.make_valid(geometries[position])
            areas[index] = valid.area
            if valid.area > 0:
                repaired[index] = _oriented_rings(valid)
        return cls(None, polygons, areas, _bounds(polygons), repaired)

    def __len__(self) -> int:
        return len(self.areas)

    def rings(self, index: int) -> list[np.ndarray]:
        """Return the borders (R, 2) of a region; all run as its area demands, holes against it."""
        return self.repaired.get(index, [self.polygons[index]])


def paired_iou(
    detections: Regions, det: np.ndarray, ground_truth: Regions, gt: np.ndarray
) -> np.ndarray:
    """Exact IoU of listed pairs in double precision.

    Rectangle against simple polygon goes through ``rsd2.ops.paired_box_polygon_iou``; a pair
    with a self-crossing polygon, or a detection that is itself a polygon, through an integral over
    pairs of edges.

    Args:
        detections: regions of the detections.
        det: (K,) numbers into ``detections``.
        ground_truth: regions of the ground truth.
        gt: (K,) numbers into ``ground_truth``.

    Returns:
        (K,) float64 IoU in [0, 1]; 0 where either region is degenerate.
    """
    iou = np.zeros(len(det))
    solid = (detections.areas[det] > 0) & (ground_truth.areas[gt] > 0)
    crossing = np.isin(gt, np.fromiter(ground_truth.repaired, np.int64))
    crossing |= np.isin(det, np.fromiter(detections.repaired, np.int64))

    (simple,) = np.nonzero(solid & ~crossing)
    for start in range(0, len(simple), _IOU_BLOCK):
        block = simple[start : start + _IOU_BLOCK]
        polygons = ground_truth.polygons[gt[block]]
        if detections.boxes is not None:
            boxes = torch.from_numpy(detections.boxes[det[block]])
            iou[block] = paired_box_polygon_iou(boxes, torch.from_numpy(polygons)).numpy()
        else:
            common = abs(_shared_area(detections.polygons[det[block]], polygons))
            iou[block] = _ratio(common, detections.areas[det[block]], ground_truth.areas[gt[block]])

    for pair in np.flatnonzero(solid & crossing):
        one, other = int(det[pair]), int(gt[pair])
        common = sum(
            _shared_area(first[None], second[None])
            for first in detections.rings(one)
            for second in ground_truth.rings(other)
        )
        iou[pair] = _ratio(abs(common), detections.areas[one], ground_truth.areas[other])[0]
    return np.where(iou > NO_OVERLAP, iou, 0.0)


def best_overlaps(
    detections: Regions,
    detection_groups: np.ndarray,
    ground_truth: Regions,
    ground_truth_groups: np.ndarray,
    min_iou: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Find for every detection the ground truth of its group with the greatest IoU.

    Candidates come from sorted bounding boxes; pairs whose areas and bounding boxes already rule
    out an IoU above ``min_iou`` are never computed. Memory grows with G + D, not G x D.

    Args:
        detections: D regions.
        detection_groups: (D,) integers.
        ground_truth: G regions.
        ground_truth_groups: (G,) integers.
        min_iou: in [0, 1); overlaps not above it are of no interest to the caller.

    Returns:
        best: (D,) int64, number of the ground truth of greatest IoU (the first of equals), or
            -1 if none of the group overlaps by more than ``min_iou``.
        iou: (D,) float64 of that pair, 0 where ``best`` is -1.
    """
    best = np.full(len(detections), -1, dtype=np.int64)
    best_iou = np.zeros(len(detections))
    for det, gt in _candidate_pairs(
        detections, detection_groups, ground_truth, ground_truth_groups
    ):
        possible = _iou_bound(detections, det, ground_truth, gt) >= min_iou - 1e-9
        det, gt = det[possible], gt[possible]
        iou = paired_iou(detections, det, ground_truth, gt)
        above = iou > min_iou
        det, gt, iou = det[above], gt[above], iou[above]
        order = np.lexsort((gt, -iou, det))
        winner = order[np.diff(det[order], prepend=-1) != 0]
        best[det[winner]] = gt[winner]
        best_iou[det[winner]] = iou[winner]
    return best, best_iou


def _candidate_pairs(
    detections: Regions,
    detection_groups: np.ndarray,
    ground_truth: Regions,
    ground_truth_groups: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of pairs of one group whose bounding boxes meet; a detection is in one block.

    Objects are sorted by group and left edge. Those that can meet a detection are then one run:
    their left edge lies between its own less the group's widest object, and its right edge. One
    sorted array serves all groups, because each has its own stretch of the number line.
    """
    groups, gt_group = np.unique(ground_truth_groups, return_inverse=True)
    left, top, right, bottom = ground_truth.bounds.T
    group_left, group_right = np.full(len(groups), np.inf), np.full(len(groups), -np.inf)
    widest = np.zeros(len(groups))
    np.minimum.at(group_left, gt_group, left)
    np.maximum.at(group_right, gt_group, right)
    np.maximum.at(widest, gt_group, right - left)
    # Stretches are as far apart as a query may reach to the left of its own.
    extent = group_right - group_left
    spacing = 1 + 1e-9 * extent.sum()
    offset = 2 * np.cumsum(extent) - extent + spacing * np.arange(len(groups)) - group_left
    by_left = np.argsort(left + offset[gt_group], kind="stable")
    stretch = (left + offset[gt_group])[by_left]

    group = np.searchsorted(groups, detection_groups)
    known = np.append(groups, -1)[group] == detection_groups
    (det,) = np.nonzero(known & (detections.areas > 0))
    group = group[det]
    low = np.maximum(detections.bounds[det, 0] - widest[group], group_left[group] - widest[group])
    high = np.minimum(detections.bounds[det, 2], group_right[group])
    # Rounding on the long number line must not lose a touching pair.
    slack = 1e-6 + 1e-12 * abs(stretch).max(initial=0)
    first = np.searchsorted(stretch, low + offset[group] - slack)
    runs = np.searchsorted(stretch, high + offset[group] + slack, side="right") - first
    det, first, runs = (values[runs > 0] for values in (det, first, runs))

    most_pairs = np.cumsum(runs)
    start = 0
    while start < len(det):
        done = most_pairs[start - 1] if start else 0
        stop = int(np.searchsorted(most_pairs, done + MAX_PAIRS_AT_ONCE, side="right"))
        part = slice(start, max(stop, start + 1))
        start = part.stop
        ends = most_pairs[part] - done
        place = np.arange(ends[-1]) + np.repeat(first[part] - ends + runs[part], runs[part])
        gt = by_left[place]
        box = np.repeat(det[part], runs[part])
        meets = (detections.bounds[box, 1] <= bottom[gt]) & (detections.bounds[box, 3] >= top[gt])
        meets &= (detections.bounds[box, 0] <= right[gt]) & (detections.bounds[box, 2] >= left[gt])
        yield box[meets], gt[meets]


def _iou_bound(
    detections: Regions, det: np.ndarray, ground_truth: Regions, gt: np.ndarray
) -> np.ndarray:
    """Bound the IoU of (K,) pairs from above by areas and bounding boxes alone."""
    first, second = detections.bounds[det], ground_truth.bounds[gt]
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    first_area, second_area = detections.areas[det], ground_truth.areas[gt]
    common = np.minimum(np.maximum(sides, 0.0).prod(axis=1), np.minimum(first_area, second_area))
    return common / np.maximum(first_area + second_area - common, np.finfo(np.float64).tiny)


def _surely_simple(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (N,) which polygons (N, V) turn the same way at all of at most four corners.

    Fewer than five such turns add up to one full turn, so that the polygon is convex.
    """
    if x.shape[1] > 4:
        return np.zeros(len(x), dtype=bool)
    dx, dy = np.roll(x, -1, axis=1) - x, np.roll(y, -1, axis=1) - y
    turn = dx * np.roll(dy, -1, axis=1) - np.roll(dx, -1, axis=1) * dy
    # Corners within rounding of straight are left to the exact test.
    size = np.maximum(abs(dx).max(axis=1), abs(dy).max(axis=1))[:, None]
    return (turn > 1e-9 * size**2).all(axis=1) | (turn < -1e-9 * size**2).all(axis=1)


def _bounds(polygons: np.ndarray) -> np.ndarray:
    """Bounding boxes (N, 4) of (N, V, 2) polygons."""
    return np.concatenate([polygons.min(axis=1), polygons.max(axis=1)], axis=1)


def _oriented_rings(geometry: shapely.Geometry) -> list[np.ndarray]:
    """Borders (R, 2) of the polygons in a geometry: outlines turn one way, holes the other."""
    rings = []
    # ``make_valid`` may return collections of multipolygons, and lines and points beside them.
    for part in shapely.get_parts(shapely.get_parts(geometry)):
        for number, ring in enumerate(shapely.get_rings(part) if part.area > 0 else []):
            points = shapely.get_coordinates(ring)[:-1]
            is_positive = _twice_the_area(*(points - points[:1]).T) > 0
            rings.append(points if is_positive == (number == 0) else points[::-1])
    return rings


def _twice_the_area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed area of polygons (..., V), doubled."""
    return (x * np.roll(y, -1, axis=-1) - np.roll(x, -1, axis=-1) * y).sum(axis=-1)


def _shared_area(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Signed areas (K,) that polygons (K, V, 2) share with polygons (K, W, 2).

    A polygon is the signed sum of the strips between its edges and a line below. Two strips share
    the integral of the lower one of their edges, which has a closed form: nothing is decided, so
    that rounding changes the result by rounding only. Positive if both polygons turn alike.
    """
    # About a corner of their own, because areas are differences of large numbers elsewhere.
    origin = first[:, :1].copy()
    origin[..., 1] = np.minimum(first[..., 1].min(axis=1), second[..., 1].min(axis=1))[:, None]
    one = (values[:, :, None] for values in _edges(first - origin))
    other = (values[:, None] for values in _edges(second - origin))
    (sign, x, y, length, rise), (sign2, x2, y2, length2, rise2) = one, other

    # The stretch that the edges of a pair (K, V, W) have in common, and its heights at both ends.
    # Shares of the length, because a slope could overflow; upright edges have no stretch.
    left = np.maximum(x, x2)
    width = np.maximum(np.minimum(x + length, x2 + length2) - left, 0.0)
    ends = np.stack([left, left + width])
    heights = y + np.clip((ends - x) / np.where(length > 0, length, 1.0), 0, 1) * rise
    heights2 = y2 + np.clip((ends - x2) / np.where(length2 > 0, length2, 1.0), 0, 1) * rise2

    # The mean of the lower edge is that of the first less the mean by which it is above the second.
    above = heights - heights2
    crosses = above[0] * above[1] < 0
    peak = above.max(axis=0)
    spread = np.where(crosses, abs(above).sum(axis=0), 1.0)
    mean_above = np.where(crosses, peak * (peak / spread), np.maximum(above.sum(axis=0), 0)) / 2
    lower = heights.mean(axis=0) - mean_above
    return (sign * sign2 * width * lower).sum(axis=(1, 2))


def _edges(polygons: np.ndarray) -> tuple[np.ndarray, ...]:
    """Direction (-1, 0, 1), left end x, y, and extent to the right and up of edges, (K, V) each."""
    ends = np.roll(polygons, -1, axis=1)
    (x, y), run = polygons.transpose(2, 0, 1), (ends - polygons)[..., 0]
    forward = run >= 0
    left, lower = np.where(forward, x, ends[..., 0]), np.where(forward, y, ends[..., 1])
    return np.sign(run), left, lower, abs(run), np.where(forward, 1, -1) * (ends[..., 1] - y)


def _ratio(common: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU in [0, 1] from the areas of the overlap and of two regions, which are positive."""
    common = np.minimum(common, np.minimum(first, second))
    return common / (first + second - common)
