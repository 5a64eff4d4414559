"""Train or evaluate any config of the project, with Detectron2's flags.

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
import sys
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from rsd2 import env
from rsd2.config import ConfigError, load_config, save_config
from rsd2.data.datasets.builtin import register_builtin
from rsd2.engine import (
    ModelEMA,
    RunError,
    build_hooks,
    build_loader,
    build_optimizer,
    build_trainer,
    evaluate,
    launch,
    prepare_output_dir,
    provenance,
    resolve_epochs,
    resolve_seed,
    select_device,
    setup_logging,
    wrap_distributed,
    write_results,
)
from rsd2.weights.checkpoint import Checkpointer, load_state
from rsd2.weights.errors import CheckpointError

_logger = logging.getLogger("rsd2.train")


class Run:
    """One training or evaluation: the config, the device, and where results go."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Register the known data sets, load the config, set up folder, log, seeds and device."""
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
        train.seed = resolve_seed(train.seed)
        if comm.is_main_process():
            save_config(self.cfg, self.output_dir / "config.yaml")
            logger.info("Full config saved to %s", self.output_dir / "config.yaml")
        seed_all_rng(train.seed + comm.get_rank())
        self.device = select_device(train.device)
        torch.backends.cudnn.benchmark = bool(train.cudnn_benchmark) and not args.eval_only
        self.origin = provenance(args.config_file, train.seed, self.device)

    def settle_length(self, loader: Any) -> None:
        """Turn epochs into iterations, which depend on the data, and save the config again."""
        resolve_epochs(self.cfg.train, loader)
        if self.cfg.train.get("epochs") is not None and comm.is_main_process():
            saved = copy.deepcopy(self.cfg)
            saved.train.epochs = None  # the file says the length that was trained, once
            save_config(saved, self.output_dir / "config.yaml")

    def build_model(self) -> nn.Module:
        """Build the model on its device."""
        model = instantiate(self.cfg.model).to(self.device)
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
    model = run.build_model()
    checkpointer = Checkpointer(model, train.output_dir, strict=train.init_strict)
    resumed = run.args.resume and checkpointer.has_checkpoint()
    path = checkpointer.get_checkpoint_file() if resumed else train.init_checkpoint
    if not path:
        raise RunError(
            "--eval-only needs weights: give train.init_checkpoint=FILE, or --resume with the "
            "train.output_dir of a training"
        )
    rest = checkpointer.load(path, checkpointables=[])
    ema = None
    if "ema" in rest:
        _logger.info("%s also has averaged weights; they are evaluated as ema/...", path)
        ema = ModelEMA(model)
        load_state(ema.model, rest["ema"]["model"], strict=train.init_strict, source=f"{path}:ema")
    iteration = rest.get("iteration")
    facts = {"checkpoint": str(path), "iteration": None if iteration is None else iteration + 1}
    return run.evaluate(model, ema, facts)


def run_training(run: Run) -> None:
    """Train, from the last checkpoint on with --resume."""
    train = run.cfg.train
    model = run.build_model()
    optimizer = build_optimizer(run.cfg.optimizer, model)
    loader = build_loader(run.cfg.dataloader.train, "dataloader.train")
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

    schedule = instantiate(run.cfg.lr_multiplier)
    trainer.register_hooks(build_hooks(train, checkpointer, schedule, evaluate_now, ema))
    resumed = run.args.resume and checkpointer.has_checkpoint()
    if checkpointer.has_checkpoint() and not run.args.resume:
        _logger.warning("%s holds a training; this one starts anew beside it", train.output_dir)
    if run.args.resume and not resumed:
        _logger.warning("no checkpoint in %s yet: --resume starts anew", train.output_dir)
    checkpointer.resume_or_load(train.init_checkpoint, resume=resumed)
    start = trainer.iter + 1 if resumed else 0
    if start >= train.max_iter:
        _logger.warning("train.max_iter=%d is reached; evaluating only", train.max_iter)
        run.evaluate(model, ema, {"iteration": start, "max_iter": train.max_iter})
    else:
        trainer.train(start, train.max_iter)


def run_process(args: argparse.Namespace) -> None:
    """Run in one process of the job.

    Args:
        args: of the command line.
    """
    run = Run(args)
    if args.eval_only:
        run_evaluation(run)
    else:
        run_training(run)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse Detectron2's flags.

    Args:
        argv: None takes the command line.

    Returns:
        The flags, the overrides in ``opts``.
    """
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is missing, e.g. --config-file configs/NAME.py")
    return args


def main(argv: list[str] | None = None) -> int:
    """Train or evaluate as the command line says, in as many processes as it asks for.

    Args:
        argv: command line without the program's name; None takes that of the process.

    Returns:
        0 if done; 1 if the run cannot start as it was asked for, with a message on stderr.
    """
    args = parse_arguments(argv)
    job = (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    try:
        launch(run_process, *job, args=(args,))
    except (ConfigError, CheckpointError, RunError) as problem:
        print(f"lazyconfig_train_net.py: error: {problem}", file=sys.stderr)
        return 1
    return 0
