"""Flatness, differences over seeds and the criterion, on courses and rows made by hand."""

import math

import numpy as np
import pytest

from rsd2.study import (
    change_over_last_fifth,
    crossed_bootstrap,
    judge_baseline,
    paired_bootstrap,
    paired_differences,
)
from rsd2.study.comparison import Difference


def test_change_over_the_last_fifth_is_that_of_a_line():
    course = [(10 * k, 100.0 - k) for k in range(1, 11)]
    # of the points at 80, 90, 100: one down for each ten steps
    assert change_over_last_fifth(course) == pytest.approx(-2)
    assert change_over_last_fifth(course, in_percent=True) == pytest.approx(-200 / 92)
    assert change_over_last_fifth([(8, 1.0), (9, 4.0), (10, 1.0)]) == pytest.approx(0)
    late = [*course[:-1], (101, 90.0)]  # logged one later, and nothing is lost
    assert change_over_last_fifth(late) == pytest.approx(-2, abs=0.1)
    assert change_over_last_fifth(course[:4]) is None  # at 40 alone and 32 has no point
    assert change_over_last_fifth([]) is None


def row(arm, seed, score, group=""):
    return {"arm": arm, "group": group, "seed": seed, "AP": score}


def test_differences_are_paired_by_seed_and_group():
    rows = [row("base", seed, 10.0 * seed) for seed in (1, 2, 3)]
    rows += [row("new", seed, 10.0 * seed + gain) for seed, gain in ((1, 1.0), (2, 2.0), (3, 3.0))]
    rows += [row("base", 1, 0.0, "few"), row("new", 1, 5.0, "few"), row("new", 2, 9.0, "few")]
    rows += [row("lost", 1, None), row("alone", 7, 1.0)]
    whole, few = paired_differences(rows, "AP", "base")
    # Student's quantile for two degrees of freedom is 4.3027
    half = 4.302653 / math.sqrt(3)
    assert (whole.arm, whole.group, whole.mean, whole.pairs) == ("new", "", 2.0, 3)
    assert whole.interval == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert (few.group, few.mean, few.interval, few.pairs) == ("few", 5.0, None, 1)


@pytest.mark.parametrize(
    ("scores", "changes", "words"),
    [
        ([40.0], [1.0], "reaches AP 40.00 (asked: 40) and changes by +1.00 over the last fifth"),
        ([40.0, 60.0], [1.0, -1.5], "changes by -1.50"),
        ([39.9], [0.0], "does not count; train longer"),
        ([60.0, 39.9], [0.0, 0.0], "reaches AP 39.90"),
        ([60.0], [-1.6], "does not count; train longer"),
        ([60.0, 60.0], [0.0, None], "too seldom to tell its course"),
        ([None], [0.0], "does not count"),
        ([], [], "base was not trained"),
    ],
)
def test_the_baseline_must_be_good_and_flat_with_every_seed(scores, changes, words):
    rows = [
        {"arm": "base", "AP": score, "change_over_last_fifth": change}
        for score, change in zip(scores, changes)
    ]
    rows.append({"arm": "other", "AP": 99.0, "change_over_last_fifth": 0.0})
    text = judge_baseline(rows, "base", "AP", least=40.0, flat=1.5)
    assert words in text
    counts = len(scores) > 0 and None not in [*scores, *changes]
    counts = counts and min(scores) >= 40 and max(map(abs, changes)) <= 1.5
    assert text.endswith("the comparison counts.") == counts


def test_the_bootstrap_pairs_seeds_and_parts() -> None:
    """Unpaired rows and undefined parts are left out; equal differences have no width."""
    rows = [
        {"arm": arm, "seed": seed, "parts": {"a": level + gain, "b": 2 * level + gain, "c": odd}}
        for seed, level in ((0, 10.0), (1, 30.0))
        for arm, gain, odd in (("new", 3.0, math.nan), ("old", 0.0, 5.0))
    ]
    for row in rows:  # a file holds what is undefined as null
        row["parts"]["d"] = None
    rows.append({"arm": "new", "seed": 2, "parts": dict.fromkeys("abcd", 99.0)})
    found = paired_bootstrap(rows, "parts", "new", "old")
    assert found == Difference("new", "", 3.0, (3.0, 3.0), 2, 2)
    assert paired_bootstrap(rows, "parts", "new", "absent") is None


def test_the_bootstrap_is_as_wide_as_the_spread_of_both() -> None:
    """With many parts the deviation of the mean is s / sqrt(n), of seeds and of parts."""
    rng = np.random.default_rng(1)
    of_parts = rng.normal(0, 4, 400)
    for of_seeds in (np.zeros(30), rng.normal(0, 2, 30)):
        rows = [
            {"arm": arm, "seed": seed, "parts": dict(enumerate(values))}
            for seed, shift in enumerate(of_seeds)
            for arm, values in (("new", of_parts + shift), ("old", 0 * of_parts))
        ]
        low, high = paired_bootstrap(rows, "parts", "new", "old").interval
        deviation = math.hypot(of_parts.std() / 20, of_seeds.std() / math.sqrt(30))
        assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_the_bootstrap_draws_rows_and_columns() -> None:
    """Any row may be drawn every time, with any column: no spread has no width."""
    assert crossed_bootstrap(np.full((2, 3), 4.0)) == (4.0, 4.0)
    low, high = crossed_bootstrap(np.array([[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]]))
    assert 0.0 <= low < 1.5 and 4.5 < high <= 6.0
