"""Pieces of objects at the seams of windows: dropped, joined or kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.data.windows.tiling import compute_windows
from rsd2.evaluation.merging import merge_tile_detections
from rsd2.inference.seams import WindowDetections, resolve_seams
from rsd2.structures import boxes_to_corners, from_opencv

WINDOW, OVERLAP, SIDE = 64, 32, 256


def polygon_of(box: np.ndarray) -> shapely.Polygon:
    return shapely.Polygon(boxes_to_corners(torch.tensor(box, dtype=torch.float64)).numpy())


def seen_in_windows(box: np.ndarray, score: float = 0.9, window: int = WINDOW) -> WindowDetections:
    """What a perfect detector finds: in each window the smallest box around what it shows."""
    rows = []
    for bounds in compute_windows(SIDE, SIDE, window, OVERLAP, 0.0).astype(float):
        shown = shapely.intersection(polygon_of(box), shapely.box(*bounds))
        if shapely.area(shown) < 1:  # less than a pixel is nothing to be found
            continue
        points = shapely.get_coordinates(shown)
        center = points.mean(axis=0)
        (x, y), sides, angle = cv2.minAreaRect((points - center).astype(np.float32))
        rect = torch.tensor([[x + center[0], y + center[1], *sides, angle]], dtype=torch.float64)
        part = shapely.area(shown) / shapely.area(polygon_of(box))
        rows.append((from_opencv(rect).numpy(), score * (0.5 + 0.5 * part), bounds))
    return WindowDetections(
        np.concatenate([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.zeros(len(rows), dtype=np.int64),
        np.stack([row[2] for row in rows]),
    )


def suppressed(found: WindowDetections) -> WindowDetections:
    """What is left after the suppression of duplicates that every merging ends with."""
    boxes, scores, classes, _ = map(torch.from_numpy, found)
    return found.select(merge_tile_detections(boxes, scores, classes, 0.1).numpy())


def iou(box: np.ndarray, other: np.ndarray) -> float:
    one, two = polygon_of(box), polygon_of(other)
    return shapely.area(one & two) / shapely.area(one | two)


place = st.floats(70, 186)
angle = st.floats(-90, 90, exclude_max=True)


@given(x=place, y=place, length=st.floats(6, 30), aspect=st.floats(0.15, 1), angle=angle)
@settings(max_examples=150, deadline=None)
def test_an_object_shorter_than_the_overlap_is_reported_once_and_whole(
    x: float, y: float, length: float, aspect: float, angle: float
) -> None:
    box = np.array([x, y, length, max(length * aspect, 3), angle])
    extent = np.subtract.reduce(np.reshape(polygon_of(box).bounds, (2, 2))[::-1]).max()
    box[2:4] *= min(1, 27 / extent)  # what ends within two pixels of a border counts as cut
    seen = seen_in_windows(box)
    for rule in ("drop", "join"):
        found, _ = resolve_seams(seen, (SIDE, SIDE), rule)
        found = suppressed(found)
        assert len(found.boxes) == 1, rule
        assert iou(found.boxes[0], box) > 0.99
        assert found.scores[0] == pytest.approx(0.9)


@given(
    x=st.floats(100, 156),
    y=st.floats(100, 156),
    length=st.floats(70, 150),
    width=st.floats(5, 24),
    angle=angle,
)
@settings(max_examples=150, deadline=None)
def test_an_object_longer_than_a_window_is_joined(
    x: float, y: float, length: float, width: float, angle: float
) -> None:
    box = np.array([x, y, length, width, angle])
    found, counts = resolve_seams(seen_in_windows(box), (SIDE, SIDE), "join")
    found = suppressed(found)
    assert len(found.boxes) == 1
    assert iou(found.boxes[0], box) > 0.85
    assert counts.joined == 1 and counts.pieces >= 2


@pytest.mark.parametrize("start, end", [(4, 50), (30, 90)])
def test_what_suppression_alone_leaves(start: int, end: int) -> None:
    """A ship of a row of windows of 64 px that overlap by 16: a piece of 2 px, or no whole."""
    ship = shapely.box(start, 20, end, 30)
    windows = np.array([[0, 0, 64, 64], [48, 0, 112, 64]], dtype=float)
    parts = [shapely.intersection(ship, shapely.box(*w)).bounds for w in windows]
    seen = WindowDetections(
        np.array([[(a + c) / 2, 25, c - a, 10, 0] for a, _, c, _ in parts]),
        np.array([0.9, 0.8]),
        np.zeros(2, dtype=np.int64),
        windows,
    )
    left = {
        rule: sorted(
            (box[0] - box[2] / 2, box[0] + box[2] / 2)
            for box in suppressed(resolve_seams(seen, (64, 112), rule)[0]).boxes
        )
        for rule in ("keep", "drop", "join")
    }
    if end == 50:
        assert left["keep"] == [(4, 50), (48, 50)]
        assert left["drop"] == left["join"] == [(4, 50)]
    else:
        assert left["keep"] == [(30, 64)]
        assert left["drop"] == [(48, 90)], "the larger of the pieces"
        assert left["join"] == [(pytest.approx(30), pytest.approx(90))]


def test_a_neighbour_is_no_whole_of_a_piece() -> None:
    """A ship beside a cut one, of another class, or of the same window takes nothing away."""
    windows = np.array([[0, 0, 64, 64], [48, 0, 112, 64]], dtype=float)
    piece, beside = [58.0, 20, 12, 8, 0], [70.0, 26, 40, 8, 0]
    cases = [(beside, 0, 1), (piece, 1, 1), ([40.0, 20, 40, 8, 0], 0, 0)]
    for other, other_class, window in cases:
        seen = WindowDetections(
            np.array([piece, other]),
            np.array([0.5, 0.9]),
            np.array([0, other_class]),
            windows[[0, window]],
        )
        for rule in ("drop", "join"):
            assert len(resolve_seams(seen, (64, 112), rule)[0].boxes) == 2, (other, rule)


def test_the_border_of_the_image_cuts_nothing() -> None:
    box = np.array([[6.0, 20, 12, 8, 0], [5.0, 20, 14, 10, 0]])
    windows = np.array([[0, 0, 64, 64], [0, 0, 64, 80]], dtype=float)
    seen = WindowDetections(box, np.array([0.9, 0.8]), np.zeros(2, dtype=np.int64), windows)
    assert resolve_seams(seen, (80, 64), "drop")[1].dropped == 0


def test_nothing_and_unknown_rules() -> None:
    empty = WindowDetections(
        np.zeros((0, 5)), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 4))
    )
    for rule in ("drop", "join", "keep"):
        found, counts = resolve_seams(empty, (64, 64), rule)
        assert len(found.boxes) == 0 and (counts.dropped, counts.joined) == (0, 0)
    with pytest.raises(ValueError, match="one of drop, join, keep, got 'merge'"):
        resolve_seams(empty, (64, 64), "merge")
