"""Schedules: the warm-up has the length it is given, whatever the training's."""

import pytest
from fvcore.common.param_scheduler import LinearParamScheduler

from rsd2.config import get_config
from rsd2.engine import with_warmup

CONSTANT = LinearParamScheduler(1.0, 1.0)


@pytest.mark.parametrize("max_iter", [600, 36_000, 90_000, 123_457])
def test_warmup_is_linear_and_ends_at_its_iteration(max_iter):
    schedule = with_warmup(CONSTANT, max_iter, warmup_iters=500, warmup_factor=1 / 3)
    for i in (0, 1, 250, 499):
        assert schedule(i / max_iter) == pytest.approx(1 / 3 + 2 / 3 * i / 500)
    assert schedule(500 / max_iter) == schedule(1.0) == 1.0


def test_short_training_is_all_warmup_and_none_leaves_the_schedule():
    short = with_warmup(CONSTANT, 100, warmup_iters=500, warmup_factor=0.5)
    assert short(0.5) == pytest.approx(0.75)
    assert with_warmup(CONSTANT, 100, warmup_iters=0) is CONSTANT
    with pytest.raises(ValueError, match="max_iter >= 1"):
        with_warmup(CONSTANT, 0)


@pytest.mark.parametrize(
    ("name", "middle", "end"), [("step", 1.0, 0.1), ("cosine", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_recipes(name, middle, end):
    from detectron2.config import instantiate

    cfg = get_config("common/schedule.py", name)
    cfg.max_iter = 10_000
    schedule = instantiate(cfg)
    assert schedule(0.0) == pytest.approx(1 / 3)
    assert schedule(0.5) == pytest.approx(middle)
    assert schedule(1.0) == pytest.approx(end, abs=1e-9)
