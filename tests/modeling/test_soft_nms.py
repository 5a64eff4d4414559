"""Soft-NMS against published factors and a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsd2.modeling.soft_nms import soften_scores


@pytest.mark.parametrize(("distance", "factor"), [(3, 0.73), (4, 0.86), (5, 0.95), (7, 1.0)])
def test_soft_nms_of_neighbouring_cars(distance: int, factor: float) -> None:
    """Cars of 6 x 6 px; the factors are the released program's."""
    boxes = np.array([[10.0, 10, 16, 16], [10.0 + distance, 10, 16 + distance, 16]])
    order, scores = soften_scores(boxes, np.array([0.5, 0.9]))
    assert order.tolist() == [1, 0] and scores[0] == 0.9
    assert scores[1] / 0.5 == pytest.approx(factor, abs=0.006)


def test_soft_nms_drops_what_falls_below_a_thousandth() -> None:
    """A box that is there twice is lowered by exp(-2)."""
    boxes = np.array([[10.0, 10, 16, 16]] * 2)
    assert soften_scores(boxes, np.array([0.9, 0.0073]))[0].tolist() == [0]
    assert soften_scores(boxes, np.array([0.9, 0.0075]))[0].tolist() == [0, 1]


def test_soft_nms_against_loops() -> None:
    """One pixel at a time: the best is taken, the others lowered, those too low dropped."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 12, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 11, (40, 2))], axis=1)
    scores = rng.uniform(0.0005, 1, 40)
    order, softened = soften_scores(boxes, scores, sigma=0.1, floor=0.01)
    remaining, expected = dict(enumerate(scores.tolist())), []
    while remaining:
        best = max(remaining, key=remaining.get)
        expected.append((best, remaining.pop(best)))
        x0, y0, x1, y1 = boxes[best]
        for other in list(remaining):
            u0, v0, u1, v1 = boxes[other]
            w, h = min(x1, u1) - max(x0, u0) + 1, min(y1, v1) - max(y0, v0) + 1
            if w <= 0 or h <= 0:
                continue
            union = (x1 - x0 + 1) * (y1 - y0 + 1) + (u1 - u0 + 1) * (v1 - v0 + 1) - w * h
            remaining[other] *= math.exp(-((w * h / union) ** 2) / 0.1)
            if remaining[other] < 0.01:
                del remaining[other]
    assert order.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(softened, [score for _, score in expected], rtol=1e-9)
    assert len(order) < 40
