"""Paired differences over the seeds of pre-training and fine-tuning."""

from __future__ import annotations

from rsd2.projects.mutdet.study_comparison import SEPARATOR, compare, differences_of


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


def test_every_arm_is_compared_with_those_that_it_has_to_beat():
    rows = rows_of("none", [10.0, 20.0])
    for start in (0, 1):
        rows += rows_of("DETReg", [12.0, 22.0], start) + rows_of("MutDet", [11.0, 21.0], start)
    text = " ".join("\n".join(compare(rows, {"AP50": "AP50"})).split())
    for pair, mean in (("DETReg - none", 2), ("MutDet - none", 1), ("MutDet - DETReg", -1)):
        assert f"{pair} | g | {mean:+.1f}" in text
    assert "2 x 2" in text
    assert compare(rows_of("none", [1.0]), {"AP50": "AP50"}) == []
