"""Treatment of objects that the border of a window cuts.

Two windows that overlap see the pixels between them twice. An object that is shorter than the
overlap is whole in at least one window; the others may hold a piece of it. A longer object may be
whole in none. Non-maximum suppression alone cannot tell a piece from an object: the piece's IoU
with the whole is small, so the piece stays.

Shapes: N detections of all windows of one image, M that remain, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import shapely
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rsd2.evaluation.records import OutputRecord
from rsd2.structures import boxes_to_corners, corners_to_boxes

SeamRule = Literal["drop", "join", "keep"]
"""``drop``: drop a piece if another window sees more of its object. ``join``: pieces of an
object that no window sees whole become one. ``keep``: change nothing."""

_TOUCH = 2.0  # pixels from a border within which a detection counts as cut; detectors are not exact
# The smallest rectangle of a convex piece is at most twice as large as the piece, so that at least
# half of it lies on the object. A neighbour of the object covers far less of it.
_SAME = 0.45
_LOOSENESS = 1.5  # a joined box larger than its pieces by more than this factor is no object


class WindowDetections(NamedTuple):
    """Detections with the windows that found them, in pixels of the whole image.

    Attributes:
        boxes: (N, 5) float64 cx, cy, w, h, angle in degrees.
        scores: (N,) float64.
        classes: (N,) int64.
        windows: (N, 4) float64 x0, y0, x1, y1 of the window of each detection.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    windows: np.ndarray

    def select(self, index: np.ndarray) -> WindowDetections:
        """Select some of the detections, by a mask or by positions."""
        return WindowDetections(*(values[index] for values in self))


def to_window_detections(records: Sequence[OutputRecord]) -> WindowDetections:
    """Concatenate the detections of several windows.

    Args:
        records: records of windows of one image; the window of an undivided image is empty.

    Returns:
        All of their detections, in the order of the records.
    """
    boxes, scores, classes = [np.zeros((0, 5))], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    windows = [np.zeros((0, 4))]
    for record in records:
        boxes.append(record.boxes)
        scores.append(record.scores)
        classes.append(record.classes)
        x, y, width, height = record.window or (0, 0, 0, 0)
        corners = np.array([x, y, x + width, y + height], dtype=np.float64)
        windows.append(np.tile(corners, (len(record.scores), 1)))

    columns = (boxes, scores, classes, windows)
    return WindowDetections(*(np.concatenate(parts) for parts in columns))


@dataclass(frozen=True)
class SeamCounts:
    """Numbers of dropped and joined pieces at the seams.

    Attributes:
        dropped: number of dropped pieces.
        pieces: number of pieces that became part of a joined detection.
        joined: number of detections that were joined from pieces.
    """

    dropped: int = 0
    pieces: int = 0
    joined: int = 0


def check_seam_rule(rule: str) -> None:
    """Check the name of a rule.

    Args:
        rule: name of the rule.

    Raises:
        ValueError: the name is not one of `SeamRule`.
    """
    if rule not in get_args(SeamRule):
        raise ValueError(f"seams must be one of {', '.join(get_args(SeamRule))}, got {rule!r}")


def resolve_seams(
    found: WindowDetections, size: tuple[int, int], rule: SeamRule
) -> tuple[WindowDetections, SeamCounts]:
    """Remove or join the pieces of objects that borders of windows cut.

    Only overlapping detections influence each other, so the result for a part of the image does not
    depend on the rest.

    Args:
        found: detections of all windows, before the suppression of duplicates. All finite.
        size: (height, width) of the image, whose own border cuts nothing.
        rule: rule to apply to the pieces.

    Returns:
        The M remaining detections, untouched ones first in their order, then joined ones; and
        counts. The window of a joined detection is the smallest one that covers the windows of its
        pieces.

    Raises:
        ValueError: unknown rule.
    """
    check_seam_rule(rule)
    if rule == "keep" or len(found.boxes) < 2:
        return found, SeamCounts()

    pieces = joined = 0
    if rule == "join":
        found, pieces, joined = _join(found, size)
    # After the joining, because a joined box may show that further pieces belong to it.
    remain = best_seen(found.boxes, found.windows, size, found.classes)
    return found.select(remain), SeamCounts(int((~remain).sum()), pieces, joined)


def _polygons(boxes: np.ndarray) -> np.ndarray:
    """Return (N,) shapely polygons of boxes (N, 5)."""
    return shapely.polygons(boxes_to_corners(torch.from_numpy(boxes)).numpy())


def _shared_area(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) area that the polygons of each pair share, square pixels."""
    # Pieces of one object have edges that differ in the last digit, where the overlay of exact
    # coordinates may find nothing in common. On a grid of a millionth of a pixel they coincide.
    return shapely.area(shapely.intersection(first, second, grid_size=1e-6))


def _is_cut(polygons: np.ndarray, windows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tell (N,) which polygons reach a border of their window that lies inside the image."""
    extents = shapely.bounds(polygons)

    # A border of the image cuts nothing: there is no pixel beyond it.
    height, width = size
    starts = (windows[:, :2] > 0) & (extents[:, :2] <= windows[:, :2] + _TOUCH)
    ends = (windows[:, 2:] < (width, height)) & (extents[:, 2:] >= windows[:, 2:] - _TOUCH)
    return starts.any(axis=1) | ends.any(axis=1)


def _pairs_of_windows(
    classes: np.ndarray, windows: np.ndarray, polygons: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (P,), (P,) of overlapping detections of one class from two windows."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    same_class = classes[first] == classes[second]
    same_window = (windows[first] == windows[second]).all(axis=1)
    chosen = same_class & ~same_window
    return first[chosen], second[chosen]


def best_seen(
    boxes: np.ndarray,
    windows: np.ndarray,
    size: tuple[int, int],
    classes: np.ndarray | None = None,
) -> np.ndarray:
    """Tell which boxes are not pieces of an object that another window shows better.

    Args:
        boxes: (N, 5) float64 boxes of all windows, pixels of the image and degrees, finite.
        windows: (N, 4) x0, y0, x1, y1 of the window of each box.
        size: (height, width) of the image, whose own border cuts nothing.
        classes: (N,); boxes of different classes do not influence each other. None treats all as
            one class.

    Returns:
        (N,) bool, True for boxes that remain.
    """
    remain = np.ones(len(boxes), dtype=bool)
    if len(boxes) < 2:
        return remain

    polygons = _polygons(boxes)
    is_cut = _is_cut(polygons, windows, size)
    areas = shapely.area(polygons)

    labels = np.zeros(len(boxes), dtype=np.int64) if classes is None else classes
    piece, other = _pairs_of_windows(labels, windows, polygons)

    # Of two pieces the larger one shows more; equal ones are left to the suppression.
    better = is_cut[piece] & (~is_cut[other] | (areas[other] > areas[piece]))
    piece, other = piece[better], other[better]
    shared = _shared_area(polygons[piece], polygons[other])
    remain[piece[shared >= _SAME * areas[piece]]] = False
    return remain


def _join(found: WindowDetections, size: tuple[int, int]) -> tuple[WindowDetections, int, int]:
    """Replace the pieces of each object that no window sees whole by one detection.

    Also return the numbers of pieces and of joined detections.
    """
    polygons = _polygons(found.boxes)
    is_cut = _is_cut(polygons, found.windows, size)
    first, second = _pairs_of_windows(found.classes, found.windows, polygons)
    both = (first < second) & is_cut[first] & is_cut[second]
    first, second = first[both], second[both]

    # Where two windows overlap they see the same pixels, and so the same part of an object.
    lower = np.maximum(found.windows[first, :2], found.windows[second, :2])
    upper = np.minimum(found.windows[first, 2:], found.windows[second, 2:])
    common = shapely.box(*lower.T, *np.maximum(lower, upper).T)
    one = shapely.intersection(polygons[first], common)
    two = shapely.intersection(polygons[second], common)
    shared = _shared_area(one, two)
    smaller = np.minimum(shapely.area(one), shapely.area(two))
    agree = (smaller > 0) & (shared >= _SAME * smaller)

    # Pieces of a long object form a chain, so whole groups are joined and not pairs.
    kept = np.ones(len(polygons), dtype=bool)
    rows: list[WindowDetections] = []
    for group in _groups(len(polygons), first[agree], second[agree]):
        # A box that does not fit its pieces joins different objects, so the pieces stay.
        box = _joined_box(polygons[group], found.windows[group])
        if box is None:
            continue
        kept[group] = False
        windows = found.windows[group]
        window = np.concatenate([windows[:, :2].min(axis=0), windows[:, 2:].max(axis=0)])

        # The best piece decides score and class: the others saw less of the object.
        best = group[np.argmax(found.scores[group])]
        rows.append(
            WindowDetections(
                box[None], found.scores[best, None], found.classes[best, None], window[None]
            )
        )

    parts = zip(found.select(kept), *rows)
    together = WindowDetections(*(np.concatenate(values) for values in parts))
    return together, int((~kept).sum()), len(rows)


def _groups(number: int, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each connected group of two or more, by their lowest position."""
    # Components of the graph whose edges are the agreeing pairs.
    links = coo_array((np.ones(len(first)), (first, second)), shape=(number, number))
    _, group_of = connected_components(links, directed=False)
    members = np.unique(np.concatenate([first, second]))
    return [members[group_of[members] == group] for group in dict.fromkeys(group_of[members])]


def _joined_box(pieces: np.ndarray, windows: np.ndarray) -> np.ndarray | None:
    """Return the box (5,) of an object from its pieces and windows (P, 4); None without a fit.

    The largest piece defines the orientation. It grows over each of its ends that a border cuts, as
    far as the other pieces reach beside it: small pieces are triangles, whose smallest rectangle
    has another orientation and reaches beyond the object.
    """
    areas = shapely.area(pieces)

    # Of pieces of similar size, the one that fewer borders cut is closer to the object.
    cut = np.array([_cut_ends(piece, window).sum() for piece, window in zip(pieces, windows)])
    largest = int(np.lexsort((-areas, cut, areas < 0.9 * areas.max()))[0])

    corners, axes, sides = _frame(pieces[largest])

    # In the frame of the largest piece, that piece is the rectangle from (0, 0) to its sides.
    turned = shapely.transform(pieces, lambda points: (points - corners[0]) @ axes.T)
    ends = np.stack([np.zeros(2), sides])
    is_cut = _cut_ends(pieces[largest], windows[largest])
    for axis in np.argsort(-sides):  # the long side first: it is the one that borders cut
        beside = shapely.intersection(turned, shapely.box(*_band(ends, axis)))

        # Slivers do not tell how far the object reaches across.
        enough = areas > (0.25 * areas.max() if axis == np.argmin(sides) else 0)
        extents = shapely.bounds(beside[enough & (shapely.area(beside) > 0)])
        reach = (extents[:, axis].min(), extents[:, 2 + axis].max())
        ends[:, axis] = np.where(is_cut[:, axis], reach, ends[:, axis])

    low, high = ends
    # A union far smaller than its box comes from pieces of neighbouring objects.
    if (high - low).prod() > _LOOSENESS * shapely.area(shapely.union_all(pieces)):
        return None
    outline = np.array([[low[0], low[1]], [high[0], low[1]], high, [low[0], high[1]]])
    return corners_to_boxes(torch.from_numpy(outline @ axes + corners[0])).numpy()


def _frame(piece: shapely.Polygon) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners (4, 2), unit vectors (2, 2) along the sides at the first one, sides (2,)."""
    corners = shapely.get_coordinates(piece)[:4]
    axes = np.stack([corners[1] - corners[0], corners[3] - corners[0]])
    sides = np.linalg.norm(axes, axis=1)
    return corners, axes / sides[:, None], sides


def _cut_ends(piece: shapely.Polygon, window: np.ndarray) -> np.ndarray:
    """Tell (2, 2) which of the two ends along either axis of its frame a border cuts."""
    corners, axes, sides = _frame(piece)
    shares = np.array([[[0, 0.5], [0.5, 0]], [[1, 0.5], [0.5, 1]]])  # middles of the four edges
    middles = corners[0] + (shares * sides) @ axes
    inside = (middles > window[:2] + _TOUCH) & (middles < window[2:] - _TOUCH)
    return ~inside.all(axis=-1)


def _band(ends: np.ndarray, axis: int) -> tuple[float, ...]:
    """Return x0, y0, x1, y1 of the rectangle between two ends, endless along an axis."""
    ends = ends.copy()
    ends[:, axis] = -1e9, 1e9
    return tuple(ends.reshape(-1))
