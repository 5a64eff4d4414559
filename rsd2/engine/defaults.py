"""The standard parts of a run: log, seed, trainer, hooks, evaluation, results."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, get_event_storage
from detectron2.utils.logger import setup_logger
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig, ListConfig
from torch import nn

import rsd2
from rsd2.io.files import write_atomically

from .errors import RunError
from .hooks import EMAHook, ModelEMA, PeriodicCheckpointer, StopOnSignal, unwrap
from .preflight import build_evaluators, build_loader
from .random_state import preserved_random_state
from .trackers import MetricWriters, build_trackers
from .train_loop import Trainer

_logger = logging.getLogger(__name__)


def setup_logging(output_dir: str) -> logging.Logger:
    """Log to the console and to ``log.txt`` (``log.txt.rank<N>`` on other processes).

    Args:
        output_dir: existing folder.

    Returns:
        The logger ``rsd2``.
    """
    rank = comm.get_rank()
    for name in ("fvcore", "detectron2"):
        setup_logger(output_dir, distributed_rank=rank, name=name)
    return setup_logger(output_dir, distributed_rank=rank, name="rsd2", abbrev_name="rsd2")


def resolve_seed(seed: int | None) -> int:
    """Return the seed of the run, the same on every process.

    Args:
        seed: seed that the user gave, >= 0; None or a negative number draws a random one.

    Returns:
        A seed >= 0.
    """
    return int(comm.shared_random_seed()) if seed is None or seed < 0 else int(seed)


def resolve_epochs(train: DictConfig, data_loader: Any) -> None:
    """Turn ``train.epochs``, if it is given, into ``train.max_iter``.

    Args:
        train: the config's ``train``. Its ``max_iter`` is set to the smallest number of optimizer
            steps in which each sample is seen at least ``epochs`` times on average.
        data_loader: loader with ``num_samples`` and ``total_batch_size``.

    Raises:
        RunError: both lengths or neither of them are given, or the loader has no sizes.
    """
    if train.get("epochs") is None:
        if train.max_iter is None:
            raise RunError("how long to train? give train.epochs or train.max_iter")
        return

    if train.max_iter is not None:
        raise RunError(
            f"train.epochs={train.epochs} and train.max_iter={train.max_iter} are two lengths of "
            "one training; set one of them to null"
        )

    if not hasattr(data_loader, "num_samples"):
        raise RunError(
            f"train.epochs needs a loader of build_train_loader, got {type(data_loader).__name__}; "
            "give train.max_iter instead"
        )

    # Rounded up, so that the last epoch is a whole one.
    step = data_loader.total_batch_size * train.accumulate
    train.max_iter = math.ceil(train.epochs * data_loader.num_samples / step)
    _logger.info(
        "train.max_iter=%d: %g epochs of %d images, %d a step",
        train.max_iter,
        train.epochs,
        data_loader.num_samples,
        step,
    )


def build_trainer(
    train: DictConfig, model: nn.Module, data_loader: Iterable[Any], optimizer: Any
) -> Trainer:
    """Build the trainer that ``train`` describes.

    Args:
        train: the config's ``train``.
        model: model on its device, wrapped if there are several processes.
        data_loader: endless loader of batches.
        optimizer: optimizer of the model's parameters.

    Returns:
        The trainer, without hooks.
    """
    return Trainer(
        model,
        data_loader,
        optimizer,
        amp_dtype=train.amp.dtype if train.amp.enabled else None,
        max_grad_norm=train.clip_grad.max_norm if train.clip_grad.enabled else None,
        norm_type=train.clip_grad.norm_type,
        accumulate=train.accumulate,
    )


def build_hooks(
    train: DictConfig,
    checkpointer: Checkpointer,
    lr_multiplier: ParamScheduler,
    evaluate_function: Callable[[], Mapping[str, Any]],
    ema: ModelEMA | None = None,
) -> list[HookBase]:
    """Build the hooks in Detectron2's order.

    Args:
        train: the config's ``train``.
        checkpointer: checkpointer that saves the model, the trainer and the average.
        lr_multiplier: schedule that multiplies the learning rates over the training's progress.
        evaluate_function: function that returns nested metrics; called periodically and at the
            end.
        ema: average to update after each step; None for none.

    Returns:
        Hooks for timing, those of ``train.hooks`` in their order, then hooks for the average, the
        schedule, checkpoints, evaluation, writers, and stopping on a signal.

    Raises:
        RunError: an entry of ``train.hooks`` does not build a hook, or one of ``train.writers``
            is no writer or lacks its library.
    """
    keeper = PeriodicCheckpointer(
        checkpointer, train.checkpointer.period, train.checkpointer.max_to_keep
    )

    # The order matters: the average takes in the new weights before they are saved and evaluated,
    # and the writers come after everything that records metrics.
    result = [
        hooks.IterationTimer(),
        *_further_hooks(train),
        EMAHook(ema) if ema is not None else None,
        hooks.LRScheduler(scheduler=lr_multiplier),
        keeper,
        hooks.EvalHook(train.eval_period, evaluate_function),
        MetricWriters(_writers(train) if comm.is_main_process() else [], train.log_period),
        StopOnSignal(keeper, train.log_period),
    ]

    return [hook for hook in result if hook is not None]


def _further_hooks(train: DictConfig) -> list[HookBase]:
    """Build the hooks of ``train.hooks``; a hook set to null is left out."""
    built = {name: instantiate(hook) for name, hook in (train.get("hooks") or {}).items()}

    for name, hook in built.items():
        if hook is not None and not isinstance(hook, HookBase):
            raise RunError(f"train.hooks.{name} is a {type(hook).__name__}, not a hook")
    return [hook for hook in built.values() if hook is not None]


def _writers(train: DictConfig) -> list[EventWriter]:
    """Return writers to the console, ``metrics.json``, TensorBoard's files and trackers."""
    # First, because the others open their files at once.
    trackers = build_trackers(train.get("writers") or (), train.output_dir)
    writers: list[EventWriter] = [
        _MetricPrinter(train.max_iter),
        JSONWriter(str(Path(train.output_dir) / "metrics.json")),
    ]

    try:
        import torch.utils.tensorboard  # noqa: F401
        from detectron2.utils.events import TensorboardXWriter
    except ImportError:
        _logger.info("tensorboard is not installed, so no event files are written")
    else:
        writers.append(TensorboardXWriter(train.output_dir))
    return [*writers, *trackers]


class _MetricPrinter(CommonMetricPrinter):
    """Prints each iteration only once.

    After an early stop Detectron2's printer is called twice for one iteration and divides by zero.
    """

    _printed: int | None = None

    def write(self) -> None:
        iteration = get_event_storage().iter
        if iteration != self._printed:
            self._printed = iteration
            super().write()


def evaluate(
    cfg: DictConfig, model: nn.Module, ema_model: nn.Module | None = None
) -> OrderedDict[str, Any]:
    """Evaluate a model, and its average beside it, on ``cfg.dataloader.test``.

    Random generators are left as they were, so that evaluating does not change a training.

    Args:
        cfg: the whole config, with ``dataloader.test`` and ``dataloader.evaluator`` (one
            evaluator or a list).
        model: model to evaluate, wrapped or not.
        ema_model: averaged model. The names of its metrics begin with ``ema/``, and its files go
            to a subfolder ``ema`` of each evaluator's ``output_dir``.

    Returns:
        Task -> metric -> value on the main process, empty on others and without an evaluator.

    Raises:
        RunError: the weights are not finite, or none of the model's detections is.
    """
    results: OrderedDict[str, Any] = OrderedDict()
    dataloader = cfg.dataloader
    if dataloader.get("evaluator") is None or dataloader.get("test") is None:
        _logger.warning("the config has no dataloader.test or no dataloader.evaluator: no metrics")
        return results

    with preserved_random_state():
        loader = build_loader(dataloader.test, "dataloader.test")
        for prefix, module in (("", unwrap(model)), ("ema/", ema_model)):
            if module is None:
                continue
            _check_weights(module, prefix)

            evaluator = build_evaluators(_evaluator_config(cfg, prefix.strip("/")))
            try:
                found = inference_on_dataset(module, loader, evaluator)
            except FloatingPointError as error:
                raise RunError(str(error)) from error

            results.update({f"{prefix}{task}": metrics for task, metrics in found.items()})

    if results:
        print_csv_format(results)
    return results


def _check_weights(model: nn.Module, prefix: str) -> None:
    """Refuse weights that are not finite: Detectron2's heads silently drop their boxes."""
    names = [f"{prefix}{name}" for name, p in model.named_parameters() if not p.isfinite().all()]
    if names:
        raise RunError(
            f"{len(names)} of the model's weights hold NaN or infinite numbers, the first is "
            f"{names[0]}: are these the right weights?"
        )


def _evaluator_config(cfg: DictConfig, subfolder: str) -> DictConfig | ListConfig:
    """Return the evaluators' config with output to a subfolder; an empty name changes nothing."""
    if not subfolder:
        return cfg.dataloader.evaluator
    # Only a whole copy keeps the interpolations that lead out of the evaluator.
    evaluators = copy.deepcopy(cfg).dataloader.evaluator
    for one in evaluators if isinstance(evaluators, ListConfig) else [evaluators]:
        if one.get("output_dir"):
            one.output_dir = str(Path(one.output_dir) / subfolder)
    return evaluators


def provenance(config_file: str, seed: int, device: torch.device) -> dict[str, Any]:
    """Collect the facts that are needed to repeat a result.

    Args:
        config_file: path of the config as given on the command line.
        seed: seed of the run.
        device: device of the model.

    Returns:
        Config, command, commit, seed, hardware, versions, processes and time (UTC).
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "config": config_file,
        # The folder of the program says nothing about the result, but may name the user.
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "seed": seed,
        "processes": comm.get_world_size(),
        "hardware": {
            "device": gpu or device.type,
            "cpu": platform.processor() or platform.machine(),
            "cpu_cores": os.cpu_count(),
        },
        "versions": {
            "rsd2": rsd2.__version__,
            "detectron2": detectron2.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _commit() -> str | None:
    """Return the commit of the checkout, with ``+changes`` if it differs, None without git."""
    root = Path(rsd2.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    # Git may be missing, or the checkout may belong to somebody else.
    try:
        head = git("rev-parse", "HEAD")
        head.check_returncode()
        is_clean = git("diff", "--quiet", "HEAD").returncode == 0
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("" if is_clean else "+changes")


def write_results(path: Path, results: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write results with their provenance as JSON; only the main process writes, atomically.

    Args:
        path: path of the file.
        results: task -> metric -> value; an undefined value (nan) is written as null.
        origin: result of :func:`provenance`, and further facts about the run.
    """
    if not comm.is_main_process():
        return
    write_atomically(path, json.dumps({"results": _plain(results), **_plain(origin)}, indent=1))


def _plain(value: Any) -> Any:
    """Return ``value`` in a form that strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value

    # Numbers of numpy and torch become Python's; strict JSON has no NaN.
    number = float(value)
    return number if math.isfinite(number) else None
