"""Merging row by row gives what merging all at once gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.data.windows.tiling import compute_windows
from rsd2.inference.seams import WindowDetections
from rsd2.inference.streamed_merging import StreamedMerging, merge_windows

HEIGHT, WIDTH, WINDOW, OVERLAP = 400, 150, 64, 16


def random_rows(seed: int, number: int) -> dict[int, WindowDetections]:
    """Detections of each row of windows by its top, crowded enough to make long groups."""
    rng = np.random.default_rng(seed)
    windows = compute_windows(WIDTH, HEIGHT, WINDOW, OVERLAP, 0.0).astype(float)
    chosen = windows[rng.integers(0, len(windows), number)]
    places = chosen[:, :2] + rng.uniform(0, WINDOW, (number, 2))
    sides = rng.uniform(2, 40, (number, 2))
    turns = rng.uniform(-90, 90, number)
    found = WindowDetections(
        np.column_stack([places, sides, turns]),
        rng.uniform(0.1, 1, number),
        rng.integers(0, 2, number),
        chosen,
    )
    tops = sorted({int(y) for y in windows[:, 1]})
    return {top: found.select(found.windows[:, 1] == top) for top in tops}


def in_order(found: WindowDetections) -> np.ndarray:
    """All numbers of the detections, sorted."""
    table = np.column_stack(found)
    return table[np.lexsort(table.T)]


@given(
    seed=st.integers(0, 1000),
    number=st.integers(0, 150),
    rule=st.sampled_from(["drop", "join", "keep"]),
    threshold=st.sampled_from([0.1, 0.5, None]),
)
@settings(max_examples=60, deadline=None)
def test_rows_give_what_all_at_once_gives(
    seed: int, number: int, rule: str, threshold: float | None
) -> None:
    rows = random_rows(seed, number)
    merging = StreamedMerging((HEIGHT, WIDTH), WINDOW, rule, threshold)
    parts = []
    tops = [*rows, HEIGHT]
    for (_, row), following in zip(rows.items(), tops[1:]):
        parts.append(merging.add(row, following))
    parts.append(merging.finish())
    streamed = WindowDetections(*(np.concatenate(values) for values in zip(*parts)))

    everything = WindowDetections(*(np.concatenate(values) for values in zip(*rows.values())))
    whole, counts = merge_windows(everything, (HEIGHT, WIDTH), rule, threshold)
    np.testing.assert_array_equal(in_order(streamed), in_order(whole))
    assert (merging.dropped, merging.joined) == (counts.dropped, counts.joined)
    candidates = number - counts.dropped - counts.pieces + counts.joined
    assert merging.suppressed == candidates - len(whole.boxes)


def test_what_is_final_is_let_go() -> None:
    """Memory does not grow with the image: little is held after each row."""
    merging = StreamedMerging((100_000, 64), WINDOW)
    most = 0
    for top in range(0, 99_936, 48):
        window = np.array([[0, top, 64, top + 64]], dtype=float)
        box = np.array([[32.0, top + 24, 20, 10, 0]])
        row = WindowDetections(box, np.array([0.9]), np.zeros(1, dtype=np.int64), window)
        merging.add(row, top + 48)
        most = max(most, len(merging._open.boxes))
    assert 0 < most <= 4


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="one of drop, join, keep"):
        StreamedMerging((64, 64), 64, "cut")
