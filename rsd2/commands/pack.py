"""Pack a trained model into a folder that ``load_detector`` takes by its name.

    rsd2 pack --run output/train --output models --name port_ships \\
        --data-licence "own images, not published" --weights-licence CC-BY-4.0
    rsd2 predict --weights models/port_ships --input images/ --output predictions
    RSD2_MODELS=models rsd2 predict --weights port_ships --input images/ --output predictions

The folder gets the weights without the optimizer (model.safetensors; the averaged ones if there are
any), config.yaml without the paths of this machine, model.json with classes, pixels and the hash of
the weights, and the model card as README.md. ``rsd2 card --help`` explains the options of the card.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save

import rsd2
from rsd2.config import ConfigError, load_config, save_config, without_weight_files
from rsd2.config.checks import config_leaves
from rsd2.io.files import file_digest, make_output_folder, write_atomically
from rsd2.io.program import print_error
from rsd2.study import StudyReportError
from rsd2.study.model_card import CardError
from rsd2.weights.checkpoint import describe_damage, load_weights
from rsd2.weights.errors import CheckpointError
from rsd2.weights.packed import CARD, CONFIG, DESCRIPTION, WEIGHTS, PackedModel

from . import model_loading
from .card import add_card_options, make_card
from .view_checks import as_settings, recorded_views


def pack(args: argparse.Namespace) -> PackedModel:
    """Pack a model.

    Args:
        args: parsed arguments of the command line.

    Returns:
        The packed model.

    Raises:
        CheckpointError: the weights cannot be read, do not fit the config, or are not finite; or
            the folder holds a model already.
        CardError: a fact that the card needs is unknown.
        ConfigError: config.yaml cannot be used.
        StudyReportError: results.json is missing.
        OSError: a file cannot be written.
    """
    args.name = args.name or args.run.resolve().name
    folder = args.output / args.name
    if (folder / DESCRIPTION).exists():
        raise CheckpointError(f"{folder} holds a packed model; remove it, or choose another --name")

    cfg = without_weight_files(load_config(args.run / CONFIG))
    card = make_card(args, [args.run])  # what the card lacks is judged before anything is written
    weights = args.weights or args.run / "model_final.pth"
    model = instantiate(cfg.model)
    checkpoint = load_weights(model, weights)
    if ema := "ema" in checkpoint and not args.raw:
        load_weights(model, weights, ema=True)
    if damage := describe_damage(model):
        raise CheckpointError(f"{weights} {damage}")

    make_output_folder(folder)
    # Copies, because the format refuses tensors that share memory, such as shared heads.
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(state))
    digest = file_digest(folder / WEIGHTS)

    save_config(without_places(cfg), folder / CONFIG)
    write_atomically(folder / CARD, card.replace("weights: null", f"weights: {digest}", 1))
    iteration = checkpoint.get("iteration")
    description = {
        "name": args.name,
        "classes": model_loading.class_names(args.classes, cfg),
        "pixels": pixels_of(cfg),
        "views": as_settings(recorded_views(checkpoint, weights)),
        "ema": ema,
        # Checkpoints count from 0, results from 1.
        "iteration": None if iteration is None else iteration + 1,
        "weights_sha256": digest,
        "rsd2": rsd2.__version__,
    }
    # Last, because a folder with this file counts as a whole model.
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=1))
    return PackedModel(folder, description)


def without_places(cfg: DictConfig) -> DictConfig:
    """Return a copy of a config without the files of the training.

    Args:
        cfg: config of a run.

    Returns:
        The copy, with the default output folder and no checkpoint to start from.
    """
    copy = cfg.copy()
    copy.train.output_dir, copy.train.init_checkpoint = "./output", ""
    for key, value in config_leaves(copy):
        if isinstance(value, str) and Path(value).is_absolute():
            print(f"config.yaml names a path of this machine: {key}={value}", file=sys.stderr)
    return copy


def pixels_of(cfg: DictConfig) -> dict[str, Any]:
    """Collect which pixels a model sees: order of the channels, normalisation and radiometry.

    Args:
        cfg: config of the model.

    Returns:
        Plain values; None where the config says nothing.
    """
    mapper = OmegaConf.to_container(cfg.dataloader.test.mapper, resolve=False)
    assert isinstance(mapper, dict)
    plain = {"image_format": OmegaConf.select(cfg, "dataloader.test.mapper.image_format")}
    for key in ("pixel_mean", "pixel_std"):
        value = cfg.model.get(key)
        plain[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return {**plain, "radiometry": mapper.get("radiometry")}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The flags.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="train.output_dir of a training")
    add(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="gets a folder of the model's name",
    )
    add(
        "--weights", type=Path, metavar="FILE", help="checkpoint (default model_final.pth of --run)"
    )
    add("--raw", action="store_true", help="pack the raw weights although there are averaged ones")
    add_card_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 if done; 1 if nothing was packed, with a message on stderr.
    """
    args = parse_arguments(argv)
    try:
        packed = pack(args)
    except (CardError, CheckpointError, ConfigError, StudyReportError, OSError) as problem:
        print_error(problem)
        return 1

    size = sum(file.stat().st_size for file in packed.folder.iterdir()) / 1e6
    print(f"{packed.folder}: {size:.1f} MB; load_detector({str(packed.folder)!r}) takes it")
    return 0
