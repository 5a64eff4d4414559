"""The trainer: loop, hooks, optimizer groups, schedules, launching. It is handed every object."""

from .defaults import (
    RunError,
    build_hooks,
    build_loader,
    build_trainer,
    check_evaluators,
    evaluate,
    prepare_output_dir,
    provenance,
    resolve_epochs,
    resolve_seed,
    setup_logging,
    write_results,
)
from .hooks import EMAHook, ModelEMA, PeriodicCheckpointer, StopOnSignal
from .launch import launch, select_device, wrap_distributed
from .optimizers import build_optimizer, optimizer_params
from .pretraining_hooks import TargetUpdate, WeightDecaySchedule, move_average
from .schedules import with_warmup
from .train_loop import NonFiniteError, Trainer

__all__ = [
    "EMAHook",
    "ModelEMA",
    "NonFiniteError",
    "PeriodicCheckpointer",
    "RunError",
    "StopOnSignal",
    "TargetUpdate",
    "Trainer",
    "WeightDecaySchedule",
    "build_hooks",
    "build_loader",
    "build_optimizer",
    "build_trainer",
    "check_evaluators",
    "evaluate",
    "launch",
    "move_average",
    "optimizer_params",
    "prepare_output_dir",
    "provenance",
    "resolve_epochs",
    "resolve_seed",
    "select_device",
    "setup_logging",
    "with_warmup",
    "wrap_distributed",
    "write_results",
]
