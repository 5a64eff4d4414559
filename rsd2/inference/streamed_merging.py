"""Merging of the detections of an endless image: releases what no later window can change.

The suppression of duplicates and the treatment of seams decide among overlapping detections, so
each group of overlapping detections is decided separately. A group is final once no later window
can hold a detection that overlaps it.

Shapes: N detections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rsd2.evaluation.merging import merge_tile_detections
from rsd2.structures import boxes_to_corners

from .seams import (
    SeamCounts,
    SeamRule,
    WindowDetections,
    check_seam_rule,
    resolve_seams,
    to_window_detections,
)


def merge_windows(
    found: WindowDetections, size: tuple[int, int], rule: SeamRule, nms_threshold: float | None
) -> tuple[WindowDetections, SeamCounts]:
    """Merge the detections of all windows of an image at once.

    Args:
        found: detections of all windows, finite.
        size: (height, width) of the image, pixels.
        rule: what happens at the seams of windows.
        nms_threshold: rotated IoU in [0, 1] above which the lower-scoring of two detections of a
            class is dropped; None keeps both.

    Returns:
        The remaining detections, in decreasing score, and counts of what happened at the seams.
    """
    found, counts = resolve_seams(found, size, rule)
    boxes, scores, classes = map(torch.from_numpy, found[:3])
    keep = merge_tile_detections(boxes, scores, classes, nms_threshold)
    return found.select(keep.numpy()), counts


@dataclass
class StreamedMerging:
    """Merges detections row by row of windows, with the result of one `merge_windows` call.

    The order of the result depends on the rows alone, and so do the bytes of a file that is written
    from it.

    Args:
        size: (height, width) of the image, pixels.
        window: side of the windows, pixels: a detection may reach as far beyond its window.
        rule: what happens at the seams of windows.
        nms_threshold: see `merge_windows`.

    Attributes:
        dropped: number of pieces dropped at seams so far.
        joined: number of detections joined from pieces so far.
        suppressed: number of duplicates dropped so far.

    Raises:
        ValueError: unknown rule.
    """

    size: tuple[int, int]
    window: int
    rule: SeamRule = "drop"
    nms_threshold: float | None = 0.1
    dropped: int = field(default=0, init=False)
    joined: int = field(default=0, init=False)
    suppressed: int = field(default=0, init=False)
    _open: WindowDetections = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_seam_rule(self.rule)
        self._open = to_window_detections([])

    def add(self, row: WindowDetections, next_top: int) -> WindowDetections:
        """Add the detections of a row of windows.

        Args:
            row: finite detections, always in the same order.
            next_top: first line of pixels of the next row of windows.

        Returns:
            The detections that are now final, from top to bottom.
        """
        waiting = WindowDetections(*(np.concatenate(pair) for pair in zip(self._open, row)))
        # A detection of the next row may reach a window's side above it, for example a long ship.
        is_final = _lowest_of_group(waiting.boxes) < next_top - self.window
        self._open = waiting.select(~is_final)
        return self._decide(waiting.select(is_final))

    def finish(self) -> WindowDetections:
        """End the rows: no more windows follow.

        Returns:
            The remaining detections, from top to bottom.
        """
        waiting, self._open = self._open, self._open.select(np.zeros(0, dtype=np.int64))
        return self._decide(waiting)

    def _decide(self, groups: WindowDetections) -> WindowDetections:
        """Merge whole groups of overlapping detections."""
        merged, counts = merge_windows(groups, self.size, self.rule, self.nms_threshold)
        self.dropped += counts.dropped
        self.joined += counts.joined
        # A join turns several candidates into one, which the suppression must not be blamed for.
        candidates = len(groups.boxes) - counts.dropped - counts.pieces + counts.joined
        self.suppressed += candidates - len(merged.boxes)

        # The last of the keys counts first: from top to bottom, then from left to right.
        keys = (-merged.scores, merged.classes, merged.boxes[:, 0], merged.boxes[:, 1])
        return merged.select(np.lexsort(keys))


def _lowest_of_group(boxes: np.ndarray) -> np.ndarray:
    """Return (N,) the lowest line of pixels that the group of each box (N, 5) reaches."""
    if len(boxes) == 0:
        return np.zeros(0)
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    lower, upper = corners.min(axis=1), corners.max(axis=1)

    # Boxes with separate extents cannot overlap; boxes that touch count as one group.
    extents = shapely.box(*lower.T, *upper.T)
    first, second = shapely.STRtree(extents).query(extents)
    links = coo_array(
        (np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(boxes),) * 2
    )
    _, group = connected_components(links, directed=False)

    lowest = np.full(group.max() + 1, -np.inf)
    np.maximum.at(lowest, group, upper[:, 1])
    return lowest[group]
