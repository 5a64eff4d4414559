"""Measures of uncertainty: their values at the ends, and what the pairing may and may not do."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.inference.sliding_window import ImageDetections
from rsd2.inference.uncertainty import SUMMARIES, disagreement, score_closeness, score_entropy


def found(*rows: tuple[float, float, int]) -> ImageDetections:
    """Boxes of 20 x 10 pixels at (x, 50), from rows of x, score and class."""
    boxes = np.array([[x, 50, 20, 10, 30] for x, _, _ in rows], dtype=np.float64).reshape(-1, 5)
    scores = np.array([score for _, score, _ in rows], dtype=np.float64)
    classes = np.array([label for _, _, label in rows], dtype=np.int64)
    return ImageDetections(boxes, scores, classes, 1, 0, 0, 0)


def test_entropy_is_one_bit_at_a_half_and_none_at_the_ends():
    values = score_entropy(np.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(values, [0, 0.811278, 1, 0.811278, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        ((10, 0.8, 1), 0.9),  # another class at the same place decides
        ((10, 0.8, 0), 0.2),  # the same class is a duplicate, no rival
        ((90, 0.8, 1), 0.2),  # another place is another object
        ((10, 0.1, 1), 0.2),  # a weak rival is farther away than "no object"
    ],
)
def test_margin_takes_the_closest_question(rival, expected):
    values = score_closeness(found((10, 0.9, 0), rival))
    assert values[0] == pytest.approx(expected)


def test_disagreement_is_none_for_equal_and_all_for_strange_detections():
    one = found((10, 0.9, 0), (60, 0.4, 1))
    assert disagreement(one, one) == pytest.approx([0, 0], abs=1e-6)
    # Another class at the same place is another statement about the image.
    other = found((10, 0.9, 1), (60, 0.1, 1))
    assert sorted(disagreement(one, other)) == pytest.approx([0.3, 0.9, 0.9], abs=1e-6)
    assert sorted(disagreement(one, found())) == pytest.approx([0.4, 0.9])


def test_disagreement_pairs_one_to_one():
    twice = found((10, 0.9, 0), (11, 0.8, 0))
    assert len(disagreement(found((10, 0.9, 0)), twice)) == 2


def test_no_detection_is_worth_nothing():
    assert [rule(np.zeros(0)) for rule in SUMMARIES.values()] == [0, 0, 0]
    assert len(score_closeness(found())) == len(disagreement(found(), found())) == 0
