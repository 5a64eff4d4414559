"""The trainer: loop, hooks, optimizer groups, schedules, launching; callers hand in all objects."""

from .defaults import (
    build_hooks,
    build_trainer,
    evaluate,
    provenance,
    resolve_epochs,
    resolve_seed,
    setup_logging,
    write_results,
)
from .errors import RunError
from .hooks import EMAHook, ModelEMA, PeriodicCheckpointer, StopOnSignal
from .launch import launch, select_device, wrap_distributed
from .optimizers import build_optimizer, optimizer_params
from .preflight import (
    build_loader,
    check_classes,
    check_run,
    classes_of,
    dataset_names,
    one_sentence,
    prepare_output_dir,
)
from .pretraining_hooks import TargetUpdate, WeightDecaySchedule, move_average
from .resuming import describe_data, settings_of
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
    "check_classes",
    "check_run",
    "classes_of",
    "dataset_names",
    "describe_data",
    "evaluate",
    "launch",
    "move_average",
    "one_sentence",
    "optimizer_params",
    "prepare_output_dir",
    "provenance",
    "resolve_epochs",
    "resolve_seed",
    "select_device",
    "settings_of",
    "setup_logging",
    "with_warmup",
    "wrap_distributed",
    "write_results",
]
