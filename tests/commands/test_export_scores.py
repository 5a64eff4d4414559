"""The scores of a model and of its file: what counts as equal, and what the detectors see."""

from __future__ import annotations

import math

import pytest
import torch

from rsd2.commands.export_scores import clip_of, compare_scores, image_of


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ({"AP": 50.0, "AP50": math.nan}, {"AP": 50.009, "AP50": math.nan}, True),
        ({"AP": 50.0}, {"AP": 50.011}, False),
        ({"AP": 50.0}, {"AP": math.nan}, False),
        ({"AP": math.nan}, {"AP": 50.0}, False),
    ],
)
def test_scores_are_equal_within_a_hundredth_of_a_point(first, second, is_same) -> None:
    table, found = compare_scores(first, second)
    assert found is is_same and "AP" in table


def test_detectors_see_rgb_whatever_the_mapper_makes() -> None:
    frames = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    newest, older = clip_of({"frames": frames})
    assert newest.shape == older.shape == (4, 5, 3)
    assert newest[1, 2].tolist() == frames[0, :, 1, 2].tolist()[::-1]
    assert image_of({"image": frames[1]}, "BGR").tolist() == older.tolist()
    assert image_of({"image": frames[1]}, "RGB")[1, 2].tolist() == frames[1, :, 1, 2].tolist()
