"""What becomes of objects that the border of a window cuts.

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
"""``drop``: a piece goes where another window sees more of its object. ``join``: pieces of an
object that no window sees whole become one. ``keep``: nothing is done."""

_TOUCH = 2.0  # pixels from a border within which a detection counts as cut; detectors are not exact
# The smallest rectangle of a convex piece is at most twice as large as the piece, so that at least
# half of it lies on the object. A neighbour of the object covers far less of it.
_SAME = 0.45
_LOOSENESS = 1.5  # a joined box that is larger than its pieces by more than this is no object


class WindowDetections(NamedTuple):
    """Detections and the windows that found them, in pixels of the whole image.

    Attributes:
        boxes: (N, 5) float64 cx, cy, w, h, angle in degrees.
        scores: (N,) float64.
        classes: (N,) int64.
        windows: (N, 4) float64 x0, y0, x1, y1 of the window of each.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    windows: np.ndarray

    def select(self, index: np.ndarray) -> WindowDetections:
        """Take some of the detections, by a mask or by positions."""
        return WindowDetections(*(values[index] for values in self))


def to_window_detections(records: Sequence[OutputRecord]) -> WindowDetections:
    """Put the records of some windows together.

    Args:
        records: records of windows of one image; of one that came whole the window is empty.

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
    return WindowDetections(*map(np.concatenate, (boxes, scores, classes, windows)))


@dataclass(frozen=True)
class SeamCounts:
    """What was done at the seams.

    Attributes:
        dropped: pieces that went.
        pieces: pieces that became part of a joined detection.
        joined: detections that pieces were joined to.
    """

    dropped: int = 0
    pieces: int = 0
    joined: int = 0


def check_seam_rule(rule: str) -> None:
    """Refuse an unknown rule.

    Args:
        rule: name of the rule.

    Raises:
        ValueError: it is none of `SeamRule`.
    """
    if rule not in get_args(SeamRule):
        raise ValueError(f"seams must be one of {', '.join(get_args(SeamRule))}, got {rule!r}")


def resolve_seams(
    found: WindowDetections, size: tuple[int, int], rule: SeamRule
) -> tuple[WindowDetections, SeamCounts]:
    """Remove or join the pieces of objects that borders of windows cut.

    Only detections that overlap have a say in what becomes of each other, so the result for a part
    of the image does not depend on what lies elsewhere.

    Args:
        found: detections of all windows, before the suppression of duplicates. All finite.
        size: (height, width) of the image: its own border cuts nothing.
        rule: what is done.

    Returns:
        The M detections that remain, those that were not touched in their order and before joined
        ones, and counts. The window of a joined detection is the smallest that covers those of its
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
    remain = best_seen(found.boxes, found.windows, size, found.classes)
    return found.select(remain), SeamCounts(int((~remain).sum()), pieces, joined)


def _polygons(boxes: np.ndarray) -> np.ndarray:
    """(N,) shapely polygons of boxes (N, 5)."""
    return shapely.polygons(boxes_to_corners(torch.from_numpy(boxes)).numpy())


def _is_cut(polygons: np.ndarray, windows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) bool: which polygons reach a border of their window that lies inside the image."""
    extents = shapely.bounds(polygons)
    height, width = size
    starts = (windows[:, :2] > 0) & (extents[:, :2] <= windows[:, :2] + _TOUCH)
    ends = (windows[:, 2:] < (width, height)) & (extents[:, 2:] >= windows[:, 2:] - _TOUCH)
    return starts.any(axis=1) | ends.any(axis=1)


def _pairs_of_windows(
    classes: np.ndarray, windows: np.ndarray, polygons: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (P,), (P,) of detections of one class and two windows that overlap."""
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
    """Tell which boxes are no pieces of an object that another window shows better.

    Args:
        boxes: (N, 5) float64 boxes of all windows, pixels of the image and degrees, finite.
        windows: (N, 4) x0, y0, x1, y1 of the window of each.
        size: (height, width) of the image: its own border cuts nothing.
        classes: (N,); boxes of different classes have nothing to do with each other. None takes
            all as one class.

    Returns:
        (N,) bool.
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
    shared = shapely.area(shapely.intersection(polygons[piece], polygons[other]))
    remain[piece[shared >= _SAME * areas[piece]]] = False
    return remain


def _join(found: WindowDetections, size: tuple[int, int]) -> tuple[WindowDetections, int, int]:
    """Put one detection in the place of the pieces of each object that no window sees whole.

    Also returned: the numbers of pieces and of joined detections.
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
    shared = shapely.area(shapely.intersection(one, two))
    smaller = np.minimum(shapely.area(one), shapely.area(two))
    agree = (smaller > 0) & (shared >= _SAME * smaller)

    kept = np.ones(len(polygons), dtype=bool)
    rows: list[WindowDetections] = []
    for group in _groups(len(polygons), first[agree], second[agree]):
        box = _joined_box(polygons[group], found.windows[group])
        if box is None:
            continue
        kept[group] = False
        windows = found.windows[group]
        window = np.concatenate([windows[:, :2].min(axis=0), windows[:, 2:].max(axis=0)])
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
    """Positions of each connected group of two and more, by their lowest position."""
    links = coo_array((np.ones(len(first)), (first, second)), shape=(number, number))
    _, group_of = connected_components(links, directed=False)
    members = np.unique(np.concatenate([first, second]))
    return [members[group_of[members] == group] for group in dict.fromkeys(group_of[members])]


def _joined_box(pieces: np.ndarray, windows: np.ndarray) -> np.ndarray | None:
    """(5,) box of an object from its pieces and their windows (P, 4); None if they do not fit.

    The largest piece says how the object is turned. It grows over each of its ends that a border
    cuts, as far as the other pieces reach beside it: small pieces are triangles, whose smallest
    rectangle is turned otherwise and reaches beyond the object.
    """
    areas = shapely.area(pieces)
    # Of pieces of about one size the one that fewer borders cut is nearer to the object.
    cut = np.array([_cut_ends(piece, window).sum() for piece, window in zip(pieces, windows)])
    largest = int(np.lexsort((-areas, cut, areas < 0.9 * areas.max()))[0])

    corners, axes, sides = _frame(pieces[largest])
    # In the frame of the largest piece that one is the rectangle from (0, 0) to its sides.
    turned = shapely.transform(pieces, lambda points: (points - corners[0]) @ axes.T)
    ends = np.stack([np.zeros(2), sides])
    is_cut = _cut_ends(pieces[largest], windows[largest])
    for axis in np.argsort(-sides):  # the long side first: it is the one that borders cut
        beside = shapely.intersection(turned, shapely.box(*_band(ends, axis)))
        # Across the object only what is no sliver says where it ends.
        enough = areas > (0.25 * areas.max() if axis == np.argmin(sides) else 0)
        extents = shapely.bounds(beside[enough & (shapely.area(beside) > 0)])
        reach = (extents[:, axis].min(), extents[:, 2 + axis].max())
        ends[:, axis] = np.where(is_cut[:, axis], reach, ends[:, axis])

    low, high = ends
    if (high - low).prod() > _LOOSENESS * shapely.area(shapely.union_all(pieces)):
        return None
    outline = np.array([[low[0], low[1]], [high[0], low[1]], high, [low[0], high[1]]])
    return corners_to_boxes(torch.from_numpy(outline @ axes + corners[0])).numpy()


def _frame(piece: shapely.Polygon) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners (4, 2), unit vectors (2, 2) along the sides from the first one, and sides (2,)."""
    corners = shapely.get_coordinates(piece)[:4]
    axes = np.stack([corners[1] - corners[0], corners[3] - corners[0]])
    sides = np.linalg.norm(axes, axis=1)
    return corners, axes / sides[:, None], sides


def _cut_ends(piece: shapely.Polygon, window: np.ndarray) -> np.ndarray:
    """(2, 2) bool: which of the two ends along either axis of its frame a border cuts."""
    corners, axes, sides = _frame(piece)
    shares = np.array([[[0, 0.5], [0.5, 0]], [[1, 0.5], [0.5, 1]]])  # middles of the four edges
    middles = corners[0] + (shares * sides) @ axes
    inside = (middles > window[:2] + _TOUCH) & (middles < window[2:] - _TOUCH)
    return ~inside.all(axis=-1)


def _band(ends: np.ndarray, axis: int) -> tuple[float, ...]:
    """x0, y0, x1, y1 of the rectangle between two ends, endless along an axis."""
    ends = ends.copy()
    ends[:, axis] = -1e9, 1e9
    return tuple(ends.reshape(-1))
