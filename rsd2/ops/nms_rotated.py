"""Greedy non-maximum suppression of rotated boxes, alone or by class.

Contract: boxes are visited by decreasing score, equal scores by index; a box is kept unless its IoU
with a box already kept, computed in float64 with the kept box as the first, exceeds the threshold
(an IoU up to 1e-12, which touching boxes may get by rounding, is no overlap at any threshold). A
box with a non-finite number or a side that is not positive overlaps nothing, so it is always kept
and suppresses nobody. The kept boxes are the same on every device, whether a kernel or the
reference below runs, because these operations give the same bits everywhere. Not differentiable.

Classes are kept apart by comparing only within a class. Shifting the coordinates by class, the
usual trick, costs the float32 digits that decide close cases.

Method of the reference: sort once by class and score; visit blocks of candidates; compare a block
only with the survivors of its class, then resolve the block itself. Pairs that are far apart are
culled by their circumscribed circles. Memory beyond the input is O(N) plus bounded tables.

Shapes: N boxes, B candidates of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .box_iou_rotated import check_boxes, check_device, check_threshold, result_dtype
from .box_iou_rotated_reference import NO_OVERLAP, DescribedBoxes
from .extension import register_operator

# Candidates resolved at a time; in the worst case all pairs within a block are computed.
BLOCK = 256


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keep the best of overlapping rotated boxes, all of one class.

    Args:
        boxes: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        scores: (N,) any real numbers but NaN, on the same device.
        iou_threshold: number in [0, 1]; a box is suppressed at IoU > threshold.

    Returns:
        (K,) int64 indices of the kept boxes, by decreasing score, equal scores by index.

    Raises:
        ValueError: if a shape or device is wrong, a score is NaN or the threshold outside [0, 1].
    """
    return batched_nms_rotated(boxes, scores, torch.zeros_like(scores).long(), iou_threshold)


def batched_nms_rotated(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    """Keep the best of overlapping rotated boxes of each class (or image, or both).

    Args:
        boxes: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        scores: (N,) any real numbers but NaN, on the same device.
        idxs: (N,) integer group of each box; only boxes of one group suppress each other.
        iou_threshold: number in [0, 1]; a box is suppressed at IoU > threshold.

    Returns:
        (K,) int64 indices of the kept boxes, by decreasing score, equal scores by index.

    Raises:
        ValueError: if a shape or device is wrong, a score is NaN or the threshold outside [0, 1].
    """
    _check(boxes, scores, idxs, iou_threshold)

    # Integers beyond 2^24 need float64 to stay apart.
    exact = scores.is_floating_point() and scores.dtype != torch.float64
    return torch.ops.rsd2.batched_nms_rotated(
        boxes.detach().to(result_dtype(boxes, boxes)),
        scores.detach().to(torch.float32 if exact else torch.float64),
        idxs.detach().long(),
        iou_threshold,
    )


def reference_batched_nms_rotated(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    """Reference that every kernel of ``rsd2::batched_nms_rotated`` must equal.

    Args:
        boxes: (N, 5) float32 or float64.
        scores: (N,) float32 or float64.
        idxs: (N,) int64.
        iou_threshold: number in [0, 1].

    Returns:
        (K,) int64, as :func:`batched_nms_rotated`.

    Raises:
        ValueError: if a score is NaN.
    """
    if torch.isnan(scores).any():
        count = int(torch.isnan(scores).sum())
        raise ValueError(f"{count} of {len(scores)} scores are NaN; drop these boxes before NMS")

    # Stable sorts: equal scores keep the order of their indices, within a group too.
    by_score = torch.argsort(scores, descending=True, stable=True)
    order = by_score[torch.argsort(idxs[by_score], stable=True)]
    kept = order[_greedy_by_group(boxes[order], idxs[order], iou_threshold)]

    is_kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    is_kept[kept] = True

    return by_score[is_kept[by_score]]


def _greedy_by_group(boxes: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Flags (N,) of the kept boxes; boxes are sorted by group, then visiting order."""
    described = DescribedBoxes(boxes)
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)

    # Where each box's group starts, on the host: it decides which survivors a block can meet.
    _, counts = torch.unique_consecutive(groups, return_counts=True)
    counts = counts.cpu().numpy()
    starts = np.repeat(np.cumsum(counts) - counts, counts)

    for first in range(0, len(boxes), BLOCK):
        end = min(first + BLOCK, len(boxes))
        block = torch.arange(first, end, device=boxes.device)

        if starts[first] < first:
            survivors = torch.nonzero(keep[starts[first] : first]).flatten() + int(starts[first])
            # Only the block's first group began before the block.
            reach = first + int(np.searchsorted(starts[first:end], starts[first], side="right"))
            old = torch.arange(first, reach, device=boxes.device)
            _, hit = _overlapping_pairs(described, survivors, old, threshold)
            alive = torch.ones(len(block), dtype=torch.bool, device=boxes.device)
            alive[hit] = False
            block = block[alive]

        rows, columns = _overlapping_pairs(described, block, block, threshold, groups[block])

        # The greedy order is sequential, so a block is resolved on the host.
        table = np.zeros((len(block), len(block)), dtype=bool)
        table[rows.cpu().numpy(), columns.cpu().numpy()] = True
        keep[block] = torch.from_numpy(_resolve(table)).to(boxes.device)
    return keep


def _overlapping_pairs(
    described: DescribedBoxes,
    ones: Tensor,
    twos: Tensor,
    threshold: float,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Positions (rows, columns) in ``ones`` and ``twos`` of pairs with IoU > threshold.

    With ``groups`` (B,) given, ``ones`` and ``twos`` are one block: only pairs of one group, the
    visited first as the row, are of interest.
    """
    choice = None
    if groups is not None:

        def choice(rows: Tensor, columns: Tensor) -> Tensor:
            return (rows < columns) & (groups[rows] == groups[columns])

    rows, columns = [ones[:0]], [ones[:0]]
    for row, column, iou in described[ones].near_ious(described[twos], choice):
        over = iou > max(threshold, NO_OVERLAP)
        rows.append(row[over])
        columns.append(column[over])

    return torch.cat(rows), torch.cat(columns)


def _resolve(table: np.ndarray) -> np.ndarray:
    """Flags (B,) of greedy survivors; ``table[i, j]``: i, if kept, suppresses j > i."""
    alive = np.ones(len(table), dtype=bool)
    # Only rows that suppress something can change the flags.
    for i in np.flatnonzero(table.any(axis=1)):
        if alive[i]:
            alive &= ~table[i]
    return alive


def _check(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> None:
    check_boxes(boxes, "boxes")
    for name, values in (("scores", scores), ("idxs", idxs)):
        if values.shape != boxes.shape[:1]:
            raise ValueError(
                f"{name} must be ({len(boxes)},) like the boxes, got {tuple(values.shape)}"
            )
        check_device(values, boxes, name)
    check_threshold(iou_threshold, "iou_threshold")


def _fake(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return idxs.new_empty(torch.library.get_ctx().new_dynamic_size())


register_operator("batched_nms_rotated", reference_batched_nms_rotated, _fake)
