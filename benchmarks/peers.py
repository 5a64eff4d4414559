"""The peers of the operators: what a user without rsd2 would run."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import shapely
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from rsd2.structures import boxes_to_corners


def torchvision_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute torchvision's rotated IoU.

    Args:
        boxes1: (N, 5) boxes.
        boxes2: (M, 5) boxes.

    Returns:
        (N, M).
    """
    return box_iou(boxes1, boxes2, fmt="cxcywhr")


def shapely_iou(boxes1: Tensor, boxes2: Tensor) -> np.ndarray:
    """Intersect the pairs that shapely's tree finds.

    Args:
        boxes1: (N, 5) boxes.
        boxes2: (M, 5) boxes.

    Returns:
        (N, M) float64.
    """
    rows, columns, iou = shapely_pairs(boxes1, boxes2, 0.0)
    result = np.zeros((len(boxes1), len(boxes2)))
    result[rows, columns] = iou
    return result


def shapely_pairs(boxes1: Tensor, boxes2: Tensor, threshold: float) -> tuple[np.ndarray, ...]:
    """Find pairs above a threshold by shapely's tree.

    Args:
        boxes1: (N, 5) boxes.
        boxes2: (M, 5) boxes.
        threshold: least IoU of a pair, excluded.

    Returns:
        Rows, columns and IoU of the pairs.
    """
    one, two = (
        shapely.polygons(boxes_to_corners(boxes.double()).numpy()) for boxes in (boxes1, boxes2)
    )

    # The tree finds candidates by their bounding boxes; only these are intersected.
    rows, columns = shapely.STRtree(two).query(one, predicate="intersects")
    inter = shapely.area(shapely.intersection(one[rows], two[columns]))
    iou = inter / (shapely.area(one)[rows] + shapely.area(two)[columns] - inter)

    kept = iou > threshold
    return rows[kept], columns[kept], iou[kept]


def greedy_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress greedily by class, with torchvision's IoU of one kept box and the rest at a time.

    Args:
        boxes: (N, 5) boxes.
        scores: (N,) scores.
        idxs: (N,) class of each box.
        iou_threshold: boxes that overlap a better one by more are dropped.

    Returns:
        (K,) int64, by decreasing score.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept = []
    for label in idxs.unique():
        rest = order[idxs[order] == label]
        while len(rest):
            kept.append(rest[:1])
            best, rest = boxes[rest[:1]], rest[1:]
            if len(rest):
                rest = rest[torchvision_iou(best, boxes[rest])[0] <= iou_threshold]

    kept = torch.cat(kept)
    return kept[torch.argsort(scores[kept], descending=True, stable=True)]


def grid_sample_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute equation 3 of Deformable DETR by ``grid_sample``: sample each level, stack, weigh,
    sum.

    Args:
        value: (B, S, H, C) values of all levels.
        shapes: height and width of each level.
        locations: (B, Q, H, L, P, 2) sampling points (x, y) in [0, 1].
        weights: (B, Q, H, L, P) weights of the points.

    Returns:
        (B, Q, H * C).
    """
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    maps = value.permute(0, 2, 3, 1).split([height * width for height, width in shapes], dim=3)
    # grid_sample counts from -1 to 1 and takes heads as a part of the batch.
    grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    samples = [
        F.grid_sample(
            level.reshape(batch * heads, channels, *shape), grid, align_corners=False
        )  # (B H, C, Q, P)
        for level, shape, grid in zip(maps, shapes, grids)
    ]

    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    total = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1)
    return total.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def smallest_rectangles(polygons: np.ndarray) -> list[tuple]:
    """Find OpenCV's smallest rectangle of one polygon after the other.

    Args:
        polygons: (N, 4, 2) float32 corners.

    Returns:
        What ``cv2.minAreaRect`` returns, N times.
    """
    return [cv2.minAreaRect(polygon) for polygon in polygons]
