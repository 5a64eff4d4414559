"""Alarms of a collapse: what rings, and what must not."""

import math

import pytest

from rsd2.projects.object_jepa.alarms import CollapseAlarms


def features(rank=20.0, in_image=0.2, at_place=0.1):
    return {"rank_me": rank, "cosine_in_image": in_image, "cosine_at_place": at_place}


def rings(alarms, losses):
    return [i for i, loss in losses if alarms.see_loss(i, loss)]


def test_a_sudden_drop_of_the_loss_rings_once():
    alarms = CollapseAlarms(grace=0, loss_window=100)
    course = [(i, 0.4) for i in range(0, 200, 10)] + [(i, 0.19) for i in range(200, 400, 10)]
    assert rings(alarms, course) == [200]


def test_a_slow_drop_and_the_start_do_not_ring():
    slow = [(i, 0.4 * 0.5 ** (i / 200)) for i in range(0, 2000, 10)]
    assert rings(CollapseAlarms(grace=0, loss_window=100), slow) == []
    assert rings(CollapseAlarms(grace=0, loss_window=300), slow) != []
    start = [(0, 1.0), (50, 0.1), (100, 0.1), (150, 0.1)]
    assert rings(CollapseAlarms(grace=50, loss_window=100), start) == []
    assert rings(CollapseAlarms(grace=0, loss_window=100), start) == [50]


def test_half_the_highest_rank_rings_each_time():
    alarms = CollapseAlarms()
    assert alarms.see_features(600, features(20)) == alarms.see_features(700, features(30)) == []
    assert alarms.see_features(800, features(15.1)) == []
    for _ in range(2):
        (message,) = alarms.see_features(900, features(14.9))
        assert "14.9" in message and "30.0" in message
    assert alarms.see_features(1000, features(math.nan))


def test_the_rank_of_random_weights_is_no_reference():
    alarms = CollapseAlarms(grace=100)
    assert alarms.see_features(0, features(40)) == alarms.see_features(50, features(15)) == []
    assert alarms.see_features(100, features(16)) == alarms.see_features(200, features(8.1)) == []
    assert alarms.see_features(300, features(7.9)) != []


def test_alike_tokens_ring():
    (one,) = CollapseAlarms().see_features(0, features(in_image=0.96))
    (two,) = CollapseAlarms().see_features(0, features(at_place=0.97))
    assert "0.960" in one and "0.970" in two and one != two
    assert CollapseAlarms().see_features(0, features(at_place=math.nan)) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"loss_window": 0},
        {"loss_drop": 1.0},
        {"rank_drop": 0.0},
        {"max_cosine": 2.0},
        {"grace": -1},
    ],
)
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(ValueError, match=str(next(iter(limits.values())))):
        CollapseAlarms(**limits)
