"""Best-overlapping ground-truth polygon of every detection, exact and in bounded memory.

Shapes: G ground-truth polygons of V vertices, D detections, K candidate pairs, N regions.
Groups are integers; a detection is compared with the ground truth of its own group alone (one
group per image and class).
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
_IOU_BLOCK = 1 << 15


@dataclass(frozen=True)
class Regions:
    """Plane regions ready for overlap tests; make them with the two class methods.

    Attributes:
        boxes: (N, 5) float64 rotated boxes, or None if the regions are general polygons.
        polygons: (N, V, 2) float64 vertices, pixels.
        areas: (N,) float64, pixels squared; 0 for a degenerate region, which overlaps nothing.
        bounds: (N, 4) float64, x0, y0, x1, y1.
        repaired: geometry by region number for the self-crossing polygons: the area that
            ``shapely.make_valid`` finds inside the outline.
    """

    boxes: np.ndarray | None
    polygons: np.ndarray
    areas: np.ndarray
    bounds: np.ndarray
    repaired: dict[int, shapely.Geometry]

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
        areas = abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
        doubtful = np.flatnonzero(~_surely_simple(x, y))
        geometries = shapely.polygons(polygons[doubtful])
        repaired = {}
        for position in np.flatnonzero(~shapely.is_valid(geometries)):
            index = doubtful[position]
            geometry = _polygonal_part(shapely.make_valid(geometries[position]))
            areas[index] = geometry.area
            if geometry.area > 0:
                repaired[int(index)] = geometry
        return cls(None, polygons, areas, _bounds(polygons), repaired)

    def __len__(self) -> int:
        return len(self.areas)

    def geometries(self, indices: np.ndarray) -> np.ndarray:
        """Build shapely geometries.

        Args:
            indices: (K,) region numbers.

        Returns:
            (K,) object array of geometries, the repaired one where there is one.
        """
        made = np.atleast_1d(shapely.polygons(self.polygons[indices]))
        if self.repaired:
            for position, index in enumerate(indices.tolist()):
                made[position] = self.repaired.get(index, made[position])
        return made


def paired_iou(
    detections: Regions, det: np.ndarray, ground_truth: Regions, gt: np.ndarray
) -> np.ndarray:
    """Exact IoU of listed pairs in double precision.

    Rectangle against simple polygon goes through ``rsd2.ops.paired_box_polygon_iou``; a pair
    with a self-crossing polygon, or a detection that is itself a polygon, through shapely.

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
    by_shapely = solid.copy()
    if detections.boxes is not None:
        by_shapely &= np.isin(gt, np.fromiter(ground_truth.repaired, np.int64))
        (exact,) = np.nonzero(solid & ~by_shapely)
        boxes, polygons = detections.boxes, ground_truth.polygons
        for start in range(0, len(exact), _IOU_BLOCK):
            block = exact[start : start + _IOU_BLOCK]
            iou[block] = paired_box_polygon_iou(
                torch.from_numpy(boxes[det[block]]), torch.from_numpy(polygons[gt[block]])
            ).numpy()
    (slow,) = np.nonzero(by_shapely)
    for start in range(0, len(slow), _IOU_BLOCK):
        block = slow[start : start + _IOU_BLOCK]
        first, second = detections.geometries(det[block]), ground_truth.geometries(gt[block])
        common = shapely.area(shapely.intersection(first, second))
        union = shapely.area(first) + shapely.area(second) - common
        iou[block] = np.clip(common / union, 0.0, 1.0)
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
    """Tell (N,) which polygons (N, V) turn the same way at all of at most four corners.

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


def _polygonal_part(geometry: shapely.Geometry) -> shapely.Geometry:
    """Drop the points and lines that ``make_valid`` may return beside areas."""
    parts = [part for part in shapely.get_parts(geometry) if part.area > 0]
    return shapely.union_all(parts)
