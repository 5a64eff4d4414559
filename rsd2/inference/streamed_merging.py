"""Merging of the detections of an endless image: what no later window can change is let go.

The suppression of duplicates and the treatment of seams decide among detections that overlap, so a
group of overlapping detections is decided by itself. It is final once no window that is still to
come can hold a detection that overlaps it.

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
        nms_threshold: rotated IoU above which the lower-scoring of two detections of a class goes,
            in [0, 1]; None keeps both.

    Returns:
        The detections that remain, in decreasing score, and what was done at the seams.
    """
    found, counts = resolve_seams(found, size, rule)
    boxes, scores, classes = map(torch.from_numpy, found[:3])
    keep = merge_tile_detections(boxes, scores, classes, nms_threshold)
    return found.select(keep.numpy()), counts


@dataclass
class StreamedMerging:
    """Merges detections that come row by row of windows, as `merge_windows` does all at once.

    The order of what comes out depends on the rows alone, and so do the bytes of a file that is
    written from it.

    Args:
        size: (height, width) of the image, pixels.
        window: side of the windows, pixels: a detection may reach as far beyond its window.
        rule: what happens at the seams of windows.
        nms_threshold: see `merge_windows`.

    Attributes:
        dropped: pieces that went at seams so far.
        joined: detections that pieces were joined to so far.
        suppressed: duplicates that went so far.

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
        """Take the detections of a row of windows.

        Args:
            row: detections, finite; in an order that is always the same.
            next_top: first line of pixels of the next row of windows.

        Returns:
            The detections that have become final, from top to bottom.
        """
        waiting = WindowDetections(*(np.concatenate(pair) for pair in zip(self._open, row)))
        is_final = _lowest_of_group(waiting.boxes) < next_top - self.window
        self._open = waiting.select(~is_final)
        return self._decide(waiting.select(is_final))

    def finish(self) -> WindowDetections:
        """Take that there are no more windows.

        Returns:
            The detections that were left, from top to bottom.
        """
        waiting, self._open = self._open, self._open.select(np.zeros(0, dtype=np.int64))
        return self._decide(waiting)

    def _decide(self, groups: WindowDetections) -> WindowDetections:
        """Merge whole groups of overlapping detections."""
        merged, counts = merge_windows(groups, self.size, self.rule, self.nms_threshold)
        self.dropped += counts.dropped
        self.joined += counts.joined
        candidates = len(groups.boxes) - counts.dropped - counts.pieces + counts.joined
        self.suppressed += candidates - len(merged.boxes)

        # The last of the keys counts first: from top to bottom, then from left to right.
        keys = (-merged.scores, merged.classes, merged.boxes[:, 0], merged.boxes[:, 1])
        return merged.select(np.lexsort(keys))


def _lowest_of_group(boxes: np.ndarray) -> np.ndarray:
    """(N,) lowest line of pixels that any box of the group of each box (N, 5) reaches."""
    if len(boxes) == 0:
        return np.zeros(0)
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    lower, upper = corners.min(axis=1), corners.max(axis=1)

    # Boxes whose extents are apart cannot overlap; those that touch are taken as one group.
    extents = shapely.box(*lower.T, *upper.T)
    first, second = shapely.STRtree(extents).query(extents)
    links = coo_array(
        (np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(boxes),) * 2
    )
    _, group = connected_components(links, directed=False)

    lowest = np.full(group.max() + 1, -np.inf)
    np.maximum.at(lowest, group, upper[:, 1])
    return lowest[group]
