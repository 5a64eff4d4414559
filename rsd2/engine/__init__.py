"""The trainer: loop, hooks, optimizer groups, schedules, launching. It is handed every object."""

from .defaults import RunError as RunError
from .defaults import build_hooks as build_hooks
from .defaults import build_loader as build_loader
from .defaults import build_trainer as build_trainer
from .defaults import evaluate as evaluate
from .defaults import prepare_output_dir as prepare_output_dir
from .defaults import provenance as provenance
from .defaults import resolve_epochs as resolve_epochs
from .defaults import resolve_seed as resolve_seed
from .defaults import setup_logging as setup_logging
from .defaults import write_results as write_results
from .hooks import EMAHook as EMAHook
from .hooks import ModelEMA as ModelEMA
from .hooks import PeriodicCheckpointer as PeriodicCheckpointer
from .hooks import StopOnSignal as StopOnSignal
from .launch import launch as launch
from .launch import select_device as select_device
from .launch import wrap_distributed as wrap_distributed
from .optimizers import build_optimizer as build_optimizer
from .optimizers import optimizer_params as optimizer_params
from .pretraining_hooks import TargetUpdate as TargetUpdate
from .pretraining_hooks import WeightDecaySchedule as WeightDecaySchedule
from .pretraining_hooks import move_average as move_average
from .schedules import with_warmup as with_warmup
from .train_loop import NonFiniteError as NonFiniteError
from .train_loop import Trainer as Trainer
