"""Learning-rate schedules that configs name; the recipes are in ``configs/common/schedule.py``."""

from __future__ import annotations

from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import ParamScheduler

from .errors import RunError


def with_warmup(
    scheduler: ParamScheduler,
    max_iter: int,
    warmup_iters: int = 500,
    warmup_factor: float = 1 / 3,
    warmup_method: str = "linear",
) -> ParamScheduler:
    """Add a warm-up to the beginning of a schedule without shifting the schedule.

    Args:
        scheduler: schedule that gives the multiplier over the progress [0, 1] of the training.
        max_iter: number of iterations of the whole training, >= 1.
        warmup_iters: number of iterations until the schedule's own value is reached, >= 0; a
            shorter training is all warm-up.
        warmup_factor: multiplier at iteration 0, relative to the schedule's first value, >= 0.
        warmup_method: ``"linear"`` or ``"constant"``.

    Returns:
        The schedule with the warm-up.

    Raises:
        RunError: a number is out of range.
    """
    if max_iter < 1 or warmup_iters < 0 or warmup_factor < 0:
        raise RunError(
            f"with_warmup needs max_iter >= 1, warmup_iters >= 0 and warmup_factor >= 0, got "
            f"{max_iter}, {warmup_iters} and {warmup_factor}"
        )

    if warmup_iters == 0:
        return scheduler

    length = min(warmup_iters / max_iter, 1.0)
    return WarmupParamScheduler(scheduler, warmup_factor, length, warmup_method)
