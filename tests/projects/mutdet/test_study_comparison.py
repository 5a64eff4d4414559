"""Paired differences over the seeds of pre-training and fine-tuning."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.projects.mutdet.study_comparison import (
    SEPARATOR,
    bootstrap_interval,
    compare,
    differences_of,
)


def rows_of(arm, values, start=None):
    name = arm if start is None else f"{arm}{SEPARATOR}{start}"
    return [
        {"arm": name, "group": "g", "seed": seed, "AP50": value}
        for seed, value in enumerate(values)
    ]


def test_differences_are_of_the_same_seeds_and_of_the_same_pre_training():
    alone = {"": {0: 1.0, 1: 2.0, 2: 9.0}}
    two = {"0": {0: 3.0, 1: 5.0}, "1": {0: 4.0, 1: 7.0, 2: 1.0}}
    assert differences_of(two, alone).tolist() == [[2.0, 3.0], [3.0, 5.0]]
    assert differences_of(two, {"1": {1: 1.0}, "0": {1: 2.0}}).tolist() == [[3.0], [6.0]]
    assert differences_of(two, {"5": {0: 1.0}, "6": {0: 1.0}}).size == 0


def test_interval_holds_the_mean_and_has_no_width_without_spread():
    assert bootstrap_interval(np.full((2, 3), 4.0)) == (4.0, 4.0)
    low, high = bootstrap_interval(np.array([[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]]))
    # Either pre-training may be drawn twice, with either seed of the fine-tuning three times.
    assert 0.0 <= low < 1.5 and 4.5 < high <= 6.0


def test_every_arm_is_compared_with_those_that_it_has_to_beat():
    rows = rows_of("none", [10.0, 20.0])
    for start in (0, 1):
        rows += rows_of("DETReg", [12.0, 22.0], start) + rows_of("MutDet", [11.0, 21.0], start)
    text = " ".join("\n".join(compare(rows, {"AP50": "AP50"})).split())
    for pair, mean in (("DETReg - none", 2), ("MutDet - none", 1), ("MutDet - DETReg", -1)):
        assert f"{pair} | g | {mean:+.1f}" in text
    assert "2 x 2" in text
    assert compare(rows_of("none", [1.0]), {"AP50": "AP50"}) == []


@pytest.mark.parametrize("seed", range(3))
def test_interval_shrinks_with_more_pre_trainings(seed):
    values = np.random.default_rng(seed).normal(size=(40, 3))
    few, many = bootstrap_interval(values[:2]), bootstrap_interval(values)
    assert many[1] - many[0] < few[1] - few[0]
