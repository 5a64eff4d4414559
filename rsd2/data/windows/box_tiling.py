"""Windows over images with upright boxes, by the rules of TinyBenchmark; nothing is read here.

Source: ``split_and_merge_image`` of TinyBenchmark. A last
window is shifted back so that it ends at the border; a box is kept in a window that shows enough of
it, and cut there. Images smaller than a window are one tile of their own size.

Shapes: N boxes, M windows. Boxes and windows are x0, y0, x1, y1 in pixels of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .tiling import window_starts


@dataclass(frozen=True)
class BoxTiling:
    """How to cut images with boxes into windows.

    Attributes:
        window: (width, height), pixels, > 0.
        overlap: (along x, along y) shared by neighbouring windows, pixels, in [0, window). 50 in
            TinyBenchmark, 30 in SSPNet's training, 100 in TOV's test.
        min_visible: a box belongs to a window if the square root of the share of its area that the
            window shows is at least this, in [0, 1].
        keep_fragments: keep what a window shows less of as a box to ignore. TinyBenchmark leaves
            it out, which makes it background; with ``erase_ignored`` of the mapper it is painted
            over instead.
        keep_empty: keep windows without boxes.
    """

    window: tuple[int, int] = (640, 512)
    overlap: tuple[int, int] = (50, 50)
    min_visible: float = 0.7
    keep_fragments: bool = False
    keep_empty: bool = True

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be meant."""
        for side, shared in zip(self.window, self.overlap, strict=True):
            if not 0 <= shared < side:
                raise ValueError(
                    f"overlap must be in [0, window), got overlap {self.overlap} and window "
                    f"{self.window}"
                )
        if not 0 <= self.min_visible <= 1:
            raise ValueError(f"min_visible must be in [0, 1], got {self.min_visible}")


class TileBoxes(NamedTuple):
    """What one window shows.

    Attributes:
        indices: (K,) int64 into the boxes of the image, increasing.
        boxes: (K, 4) float64 x0, y0, x1, y1 in pixels of the window, cut at its border.
        is_fragment: (K,) bool, kept only to be ignored.
    """

    indices: np.ndarray
    boxes: np.ndarray
    is_fragment: np.ndarray


def place_windows(height: int, width: int, tiling: BoxTiling) -> np.ndarray:
    """Place windows over an image.

    Args:
        height: height of the image, pixels, >= 1.
        width: width of the image, pixels, >= 1.
        tiling: size and overlap of the windows.

    Returns:
        (M, 4) int64 windows, row by row, all inside the image; together they cover it.

    Raises:
        ValueError: if the image has no pixel.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels cannot be tiled")

    # Tilings and boxes name x first, images their height.
    sides = (width, height)
    starts = [window_starts(*axis) for axis in zip(sides, tiling.window, tiling.overlap)]
    x0, y0 = (grid.reshape(-1) for grid in np.meshgrid(*starts))
    corners = np.stack([x0, y0], axis=1)
    return np.concatenate([corners, np.minimum(corners + tiling.window, sides)], axis=1)


def assign_boxes(boxes: np.ndarray, windows: np.ndarray, tiling: BoxTiling) -> list[TileBoxes]:
    """Find the boxes of every window and cut them.

    Args:
        boxes: (N, 4) with positive sides, finite.
        windows: (M, 4).
        tiling: with the rule which boxes belong to a window.

    Returns:
        for each window what it shows. A box may be in several windows, or in none.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    windows = np.asarray(windows, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(boxes[None, :, :2], windows[:, None, :2])
    high = np.minimum(boxes[None, :, 2:], windows[:, None, 2:])
    shown = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    visible = np.sqrt(shown) / np.sqrt(areas)
    kept = (visible >= tiling.min_visible) & (shown > 0)
    chosen = (shown > 0) if tiling.keep_fragments else kept
    tiles = []
    for k, window in enumerate(windows):
        indices = np.flatnonzero(chosen[k])
        cut = np.concatenate([low[k, indices], high[k, indices]], axis=1)
        tiles.append(TileBoxes(indices, cut - np.tile(window[:2], 2), ~kept[k, indices]))
    return tiles
