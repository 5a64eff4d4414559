r"""Train or evaluate any config of the project, with Detectron2's flags.

    python tools/lazyconfig_train_net.py --config-file CONFIG.py train.max_iter=1000 ...
    python tools/lazyconfig_train_net.py --config-file CONFIG.py --resume
    python tools/lazyconfig_train_net.py --config-file CONFIG.py --eval-only \
        train.init_checkpoint=output/model_final.pth
    torchrun --nproc-per-node 8 tools/lazyconfig_train_net.py --config-file CONFIG.py

Runs on GPUs and on CPUs. ``output_dir`` gets config.yaml, log.txt, metrics.json (the course of
the training), checkpoints, and results.json (the last evaluation with its provenance).
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from omegaconf import OmegaConf
from torch import nn
from torch.multiprocessing import ProcessExitedException

from rsd2 import env
from rsd2.config import ConfigError, load_config, save_config, without_weight_files
from rsd2.config.checks import config_leaves
from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.mappers.views import Views
from rsd2.engine import (
    ModelEMA,
    RunError,
    Trainer,
    build_hooks,
    build_loader,
    build_optimizer,
    build_trainer,
    check_evaluators,
    check_run,
    classes_of,
    dataset_names,
    describe_data,
    evaluate,
    launch,
    one_sentence,
    prepare_output_dir,
    provenance,
    resolve_epochs,
    resolve_seed,
    select_device,
    settings_of,
    setup_logging,
    wrap_distributed,
    write_results,
)
from rsd2.io.program import print_error
from rsd2.weights.checkpoint import Checkpointer, load_state
from rsd2.weights.errors import CheckpointError

from .view_checks import as_settings, recorded_views, views_of, warn_of_other_views

_logger = logging.getLogger("rsd2.train")

PROBLEMS = (ConfigError, CheckpointError, RunError)
"""Problems that end a run with one sentence."""

SETTINGS_OF_TRAIN = (
    *("init_checkpoint", "max_iter", "epochs", "seed", "accumulate"),
    *("amp", "clip_grad", "ema", "hooks"),
)
"""Keys of ``train`` that decide what is trained, unlike those for places and intervals."""


class Run:
    """One training or evaluation: config, device and output folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Register the known datasets, load the config, set up folder, log, seeds and device."""
        register_builtin()
        self.args = args
        self.cfg = load_config(args.config_file, args.opts)
        train = self.cfg.train
        self.output_dir = prepare_output_dir(train.output_dir)
        logger = setup_logging(train.output_dir)
        logger.info(
            "Environment:\n%s", "\n".join(f"{key}: {value}" for key, value in env.collect())
        )
        logger.info("Command line: %s", args)

        # Drawn once here, so that config.yaml and all processes have the same seed.
        self.seed_is_drawn = train.seed is None or train.seed < 0
        train.seed = resolve_seed(train.seed)

        # A resumed run may be refused; the file must then still describe what was trained.
        if not args.resume:
            self.save_config()
        # Each process needs its own numbers, or all would augment alike.
        seed_all_rng(train.seed + comm.get_rank())

        self.device = select_device(train.device)
        # Timing kernels pays off in training only; images of a test set differ in size.
        torch.backends.cudnn.benchmark = bool(train.cudnn_benchmark) and not args.eval_only
        self.origin = provenance(args.config_file, train.seed, self.device)

    def save_config(self) -> None:
        """Write config.yaml."""
        if not comm.is_main_process():
            return
        saved = copy.deepcopy(self.cfg)
        if saved.train.get("epochs") is not None and saved.train.max_iter is not None:
            saved.train.epochs = None  # the file says the length that was trained, once
        save_config(saved, self.output_dir / "config.yaml")
        _logger.info("Full config saved to %s", self.output_dir / "config.yaml")

    def settle_length(self, loader: Any) -> None:
        """Turn epochs into iterations, which depend on the data, and save the config again."""
        resolve_epochs(self.cfg.train, loader)
        if self.cfg.train.get("epochs") is not None and not self.args.resume:
            self.save_config()

    def settings(self, loader: Any, views: Views | None, *, resumed: bool) -> dict[str, Any]:
        """Collect the settings that a later run is compared with when it resumes this one."""
        cfg, train = self.cfg, self.cfg.train
        plain = {
            name: OmegaConf.to_container(cfg[name], resolve=True)
            for name in ("model", "optimizer", "lr_multiplier")
        }
        plain["dataloader"] = {"train": OmegaConf.to_container(cfg.dataloader.train, resolve=True)}
        names = [name for name in SETTINGS_OF_TRAIN if name in train]
        plain["train"] = {
            name: OmegaConf.to_container(train[name], resolve=True)
            if OmegaConf.is_config(train[name])
            else train[name]
            for name in names
        }
        found = settings_of(config_leaves(plain))
        # A drawn seed says nothing about the wish to have it; a resumed run takes the old one.
        if resumed and self.seed_is_drawn:
            found["train.seed"] = None
        classes = [classes_of(name) for name in dataset_names(cfg, "train")]
        found |= as_settings(views)
        return {**found, **describe_data(loader, classes[0] if classes else None)}

    def adopt_seed(self, trainer: Trainer) -> None:
        """Take the seed of the continued checkpoint if none was given."""
        seed = trainer.settings.get("train.seed")
        self.cfg.train.seed = self.origin["seed"] = self.cfg.train.seed if seed is None else seed

    def build_model(self) -> nn.Module:
        """Build the model on its device."""
        cfg = without_weight_files(self.cfg) if self.args.eval_only else self.cfg
        with one_sentence("model"):
            model = instantiate(cfg.model)
        # Convolutions follow the layout of their weights; images need not be turned.
        is_last = bool(self.cfg.train.get("channels_last", False))
        layout = torch.channels_last if is_last else torch.preserve_format
        model = model.to(self.device, memory_format=layout)
        _logger.info("Model on %s:\n%s", self.device, model)
        return model

    def evaluate(
        self, model: nn.Module, ema: ModelEMA | None, facts: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Evaluate, print and write results.json."""
        results = evaluate(self.cfg, model, None if ema is None else ema.model)
        if results:
            write_results(self.output_dir / "results.json", results, {**self.origin, **facts})
        return results


def run_evaluation(run: Run) -> Mapping[str, Any]:
    """Evaluate ``train.init_checkpoint``, or with --resume the last checkpoint of the run."""
    train = run.cfg.train
    run.save_config()
    # Only the views are kept: the dataset may be large, and the loader reads it again.
    tested = views_of(run.cfg, "test", check_run(run.cfg, is_training=False))
    folders = error_page_folders(run.cfg)
    model = run.build_model()
    checkpointer = Checkpointer(model, train.output_dir, strict=train.init_strict)
    resumed = run.args.resume and checkpointer.has_checkpoint()
    if resumed and train.init_checkpoint:
        _logger.warning(
            "--resume evaluates the last checkpoint of %s, not train.init_checkpoint=%s",
            train.output_dir,
            train.init_checkpoint,
        )

    path = checkpointer.get_checkpoint_file() if resumed else train.init_checkpoint
    if not path:
        raise RunError(
            "--eval-only needs weights: give train.init_checkpoint=FILE, or --resume with the "
            "train.output_dir of a training"
        )

    rest = checkpointer.load(path, checkpointables=[])
    warn_of_other_views(run.cfg, model, recorded_views(rest, path), tested)
    ema = None
    if "ema" in rest:
        _logger.info("%s also has averaged weights; they are evaluated as ema/...", path)
        ema = ModelEMA(model)
        load_state(ema.model, rest["ema"]["model"], strict=train.init_strict, source=f"{path}:ema")

    # Checkpoints count from 0, results from 1.
    iteration = rest.get("iteration")
    facts = {"checkpoint": str(path), "iteration": None if iteration is None else iteration + 1}
    results = run.evaluate(model, ema, facts)
    if comm.is_main_process():
        # Averaged weights write their files to a subfolder of this name.
        write_error_pages(folders, ("", "ema") if ema is not None else ("",))
    return results


def error_page_folders(cfg: Any) -> dict[Path, str | None]:
    """Return where ``train.error_report`` wants a page of errors.

    Args:
        cfg: config of the run.

    Returns:
        Folder of an evaluator -> its dataset; none if the config does not ask for pages.

    Raises:
        RunError: an evaluator writes no predictions.
    """
    if not cfg.train.get("error_report", False):
        return {}
    evaluators = cfg.dataloader.get("evaluator") or OmegaConf.create([])
    configs: list[Any] = list(evaluators) if OmegaConf.is_list(evaluators) else [evaluators]
    if not all(config.get("output_dir") for config in configs):
        raise RunError(
            "train.error_report=true needs the predictions that an evaluator writes; set "
            "dataloader.evaluator.output_dir"
        )
    return {Path(config.output_dir): config.get("dataset_name") for config in configs}


def write_error_pages(folders: Mapping[Path, str | None], parts: Sequence[str]) -> None:
    """Write pages of errors beside predictions.

    Args:
        folders: see `error_page_folders`.
        parts: subfolders of each.

    Raises:
        RunError: predictions cannot be analysed.
    """
    if not folders:
        return
    # Only now, so that a run without pages does not wait for Matplotlib.
    from rsd2.analysis.error_input import AnalysisError
    from rsd2.analysis.error_report import write_error_report

    for folder, dataset in folders.items():
        for part in parts:
            try:
                page = write_error_report(folder / part, folder / part, dataset=dataset)
            except AnalysisError as error:
                raise RunError(f"train.error_report: {error}") from error
            _logger.info("The page of errors is %s", page)


def run_training(run: Run) -> None:
    """Train, from the last checkpoint on with --resume."""
    train = run.cfg.train
    model = run.build_model()
    with one_sentence("optimizer"):
        optimizer = build_optimizer(run.cfg.optimizer, model)
    loader = build_loader(run.cfg.dataloader.train, "dataloader.train", run.cfg)
    views = check_before_first_step(run, model, loader)
    run.settle_length(loader)

    model = wrap_distributed(model, **train.ddp)
    ema = ModelEMA(model, train.ema.decay, train.ema.warmup) if train.ema.enabled else None
    trainer = build_trainer(train, model, loader, optimizer)
    parts = {"trainer": trainer} if ema is None else {"trainer": trainer, "ema": ema}
    checkpointer = Checkpointer(
        model,
        train.output_dir,
        strict=train.init_strict,
        inheritance=instantiate(train.get("init_inherit")),
        **parts,
    )

    def evaluate_now() -> Mapping[str, Any]:
        done = min(trainer.iter + 1, train.max_iter)
        return run.evaluate(model, ema, {"iteration": done, "max_iter": train.max_iter})

    # The schedule needs the final number of iterations, so it comes after `settle_length`.
    with one_sentence("lr_multiplier"):
        schedule = instantiate(run.cfg.lr_multiplier)
    trainer.register_hooks(build_hooks(train, checkpointer, schedule, evaluate_now, ema))
    # Hooks are registered first: a checkpoint holds their states, too.
    resumed = load_start(run, checkpointer, trainer, loader, views)
    start = trainer.iter + 1 if resumed else 0
    # A finished training that is resumed evaluates only, for example with other metrics.
    if start >= train.max_iter:
        _logger.warning("train.max_iter=%d is reached; evaluating only", train.max_iter)
        run.evaluate(model, ema, {"iteration": start, "max_iter": train.max_iter})
    else:
        trainer.train(start, train.max_iter)


def check_before_first_step(run: Run, model: nn.Module, loader: Any) -> Views | None:
    """Check what would else be noticed after hours.

    Args:
        run: training run.
        model: its model, not wrapped.
        loader: loader of the training data.

    Returns:
        What the training images show; None if that cannot be measured.

    Raises:
        RunError: see `check_run`.
    """
    tested = check_run(run.cfg, is_training=True)
    views = views_of(run.cfg, "train", getattr(loader, "dataset", None))
    warn_of_other_views(run.cfg, model, views, views_of(run.cfg, "test", tested))
    return views


def load_start(
    run: Run,
    checkpointer: Checkpointer,
    trainer: Trainer,
    loader: Any,
    views: Views | None = None,
) -> bool:
    """Load the start of a training: its last checkpoint, initial weights, or nothing.

    Args:
        run: training run whose config chooses them.
        checkpointer: checkpointer of the model and the trainer.
        trainer: trainer that gets the settings of the run, and with --resume the state of the
            checkpoint.
        loader: loader of the training data.
        views: what its images show, which checkpoints record; None if that is unknown.

    Returns:
        Whether a checkpoint is continued.

    Raises:
        CheckpointError: the checkpoint cannot be read, or belongs to another model.
        RunError: a setting differs that a resumed run cannot change.
    """
    train = run.cfg.train
    resumed = run.args.resume and checkpointer.has_checkpoint()
    if checkpointer.has_checkpoint() and not run.args.resume:
        _logger.warning("%s holds a training; this one starts anew beside it", train.output_dir)
    if run.args.resume and not resumed:
        _logger.warning("no checkpoint in %s yet: --resume starts anew", train.output_dir)

    # Compared in `resume_or_load`, which restores the trainer's state.
    trainer.settings = run.settings(loader, views, resumed=resumed)
    trainer.allow_new_data = bool(train.get("allow_new_data", False))
    rest = checkpointer.resume_or_load(train.init_checkpoint, resume=resumed)
    if resumed:
        run.adopt_seed(trainer)
        averages = train.ema.enabled, "ema" in rest
        if averages == (False, True):
            _logger.warning("train.ema.enabled=false: the average of the checkpoint ends here")

    # Only now is it certain that the resumed run is allowed.
    if run.args.resume:
        run.save_config()
    return resumed


def run_process(args: argparse.Namespace) -> None:
    """Run in one process of the job.

    Args:
        args: parsed arguments of the command line.
    """
    run = Run(args)
    # A missing evaluator would show only at the first evaluation, hours later.
    check_evaluators(run.cfg)
    if args.eval_only:
        run_evaluation(run)
    else:
        run_training(run)


def run_or_explain(args: argparse.Namespace) -> None:
    """Run in a child process, which would otherwise show an error with its traceback.

    Args:
        args: parsed arguments of the command line.

    Raises:
        SystemExit: the run cannot start as requested; this process has printed why.
    """
    try:
        run_process(args)
    except PROBLEMS as problem:
        print_error(problem)
        raise SystemExit(1) from problem


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse Detectron2's flags.

    Args:
        argv: arguments; None takes those of the command line.

    Returns:
        The flags, with the overrides in ``opts``.
    """
    parser = default_argument_parser()
    parser.description, parser.epilog = __doc__, None
    # Detectron2's words are about its own configs and trainer.
    meanings = {
        "config_file": "LazyConfig, .py or saved .yaml: a path, or the name of one of rsd2's own",
        "resume": "continue from the last checkpoint of train.output_dir, if there is one",
        "eval_only": "evaluate the weights train.init_checkpoint, or with --resume the last ones",
        "num_gpus": "number of processes on this machine, one for each GPU (default %(default)s)",
        "machine_rank": "number of this machine, from 0",
        "dist_url": "address at which the processes meet (default %(default)s)",
        "opts": "overrides of the config, key.sub=value",
    }
    for action in parser._actions:
        action.help = meanings.get(action.dest, action.help)
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is missing, e.g. --config-file configs/NAME.py")
    return args


def main(argv: list[str] | None = None) -> int:
    """Train or evaluate as the command line says, in as many processes as requested.

    Args:
        argv: command line without the program's name; None takes that of the process.

    Returns:
        0 if done; 1 if the run cannot start as requested, with a message on stderr.
    """
    args = parse_arguments(argv)
    job = (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    try:
        # One process raises here; several raise in their own processes, and only exit codes return.
        launch(run_process if args.num_gpus <= 1 else run_or_explain, *job, args=(args,))
    except PROBLEMS as problem:
        print_error(problem)
        return 1
    except ProcessExitedException as stop:
        if stop.exit_code > 0:
            return stop.exit_code
        # A process may be killed for want of memory; one whose partner has left aborts, too, and
        # then the partner has said why. A signal's number is negative, and no exit code.
        print_error(
            f"process {stop.error_index} of the run was ended by {stop.signal_name or 'a signal'}; "
            "what the processes said before stands above. SIGKILL often means want of memory"
        )
        return 1

    return 0
