"""Detectors that a command line names: a checkpoint and its config, a packed model, or ONNX.

And the windows in which they search.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig
from torch import nn

from rsd2.config import ConfigError, load_config, without_weight_files
from rsd2.data.datasets.builtin import register_builtin
from rsd2.engine import provenance, select_device
from rsd2.export.description import ExportError
from rsd2.export.onnx_detector import OnnxClipDetector, OnnxDetector
from rsd2.inference.clip_detector import ClipDetector
from rsd2.inference.image_detector import ImageDetector
from rsd2.inference.sliding_window import WindowParameters
from rsd2.weights.checkpoint import describe_damage, load_weights
from rsd2.weights.errors import CheckpointError
from rsd2.weights.packed import find_packed

from .view_checks import measures_in_shares, recorded_views

# Errors that a user can correct; a ConfigError is a ValueError.
PROBLEMS = (ValueError, FileNotFoundError, CheckpointError, ExportError)


def read_test_mapper(cfg: DictConfig) -> Any:
    """Return the unbuilt mapper of the config's test images; empty if there is none.

    A mapper with ``num_frames`` belongs to a model of clips.

    Args:
        cfg: the config.

    Returns:
        The mapper's node in the config, or an empty dict.
    """
    return (cfg.dataloader.get("test") or {}).get("mapper") or {}


def is_onnx(weights: str | Path | None) -> bool:
    """Tell whether weights are an exported ONNX file."""
    return weights is not None and Path(weights).suffix == ".onnx"


def read_model_config(args: argparse.Namespace) -> DictConfig:
    """Load the config that the command line names, or that of the packed model.

    Args:
        args: parsed arguments of the command line. Of a packed model, its files and its classes
            take the place of those that are not given.

    Raises:
        ConfigError: the command line names no config, or the config cannot be used.
        CheckpointError: the packed model is damaged.
    """
    packed = find_packed(args.weights) if args.weights else None
    if packed is not None:
        if args.config_file or args.ema:
            raise ConfigError(
                f"{packed.folder} has its config and one kind of weights; leave out --config-file "
                "and --ema"
            )
        args.config_file, args.weights = str(packed.config), str(packed.weights)
        args.classes = args.classes or packed.classes
    if not args.config_file:
        raise ConfigError(
            "--config-file FILE is missing; only a .onnx file and a packed model go without one"
        )
    return load_config(args.config_file, args.opts)


def read_parameters(
    args: argparse.Namespace, nms_threshold: float = 0.1, window: int = 1024, overlap: int = 200
) -> WindowParameters:
    """Collect how images are cut and merged.

    Args:
        args: parsed arguments of the command line.
        nms_threshold: threshold to use if the command line names none.
        window: side of the windows to use if the command line names none.
        overlap: overlap of the windows to use if the command line names none.

    Returns:
        The parameters.

    Raises:
        ValueError: a parameter is out of range.
    """
    return WindowParameters(
        window=window if args.window is None else args.window,
        overlap=overlap if args.overlap is None else args.overlap,
        nms_threshold=nms_threshold if args.nms_threshold is None else args.nms_threshold,
        score_threshold=args.score_threshold,
        batch_size=args.batch_size,
        padding=args.padding,
        seams=args.seams,
    )


def build_image_detector(
    args: argparse.Namespace, cfg: DictConfig
) -> tuple[ImageDetector, dict[str, Any]]:
    """Build a model of images, load its weights, and collect where they come from.

    Args:
        args: parsed arguments of the command line.
        cfg: the config.

    Returns:
        The detector and its provenance.

    Raises:
        ConfigError: the model takes clips, no weights are named, or the config says nothing
            about test images.
        CheckpointError: the weights cannot be read, or belong to another model.
        ValueError: unknown device.
    """
    # Before the weights, whose loading takes longest.
    mapper = read_test_mapper(cfg)
    if "num_frames" in mapper:
        raise ConfigError(
            f"{args.config_file} describes a model of videos; use rsd2 predict for those"
        )

    model, augmentations, checkpoint, facts = _load_model(args, cfg)
    detector = ImageDetector(
        model,
        augmentations,
        mapper.get("image_format", "RGB"),
        recorded_views(checkpoint, facts["weights"]),
        measures_in_shares(model),
    )
    return detector, facts


def build_clip_detector(
    args: argparse.Namespace, cfg: DictConfig
) -> tuple[ClipDetector, dict[str, Any]]:
    """Build a model of clips, load its weights, and collect where they come from.

    Args:
        args: parsed arguments of the command line.
        cfg: the config; its test mapper has ``num_frames``.

    Returns:
        The detector and its provenance.

    Raises:
        ConfigError: no weights are named, or the config does not describe test images.
        CheckpointError: the weights cannot be read, or belong to another model.
        ValueError: unknown device.
    """
    model, augmentations, _, facts = _load_model(args, cfg)
    return ClipDetector(model, augmentations, read_test_mapper(cfg).num_frames), facts


def _load_model(
    args: argparse.Namespace, cfg: DictConfig
) -> tuple[nn.Module, Sequence[Any], dict[str, Any], dict[str, Any]]:
    """Return the loaded model on its device, the test augmentations, checkpoint and provenance."""
    weights = args.weights or cfg.train.init_checkpoint
    if not weights:
        raise ConfigError("weights are missing: give --weights FILE or train.init_checkpoint=FILE")
    # Configs of a model alone have no loader, and so no rule for test images.
    mapper = read_test_mapper(cfg)
    if "augmentations" not in mapper:
        raise ConfigError(f"{args.config_file} has no dataloader.test.mapper.augmentations")

    device = select_device(args.device or cfg.train.get("device", "auto"))
    model = instantiate(without_weight_files(cfg).model)
    checkpoint = load_weights(model, weights, strict=cfg.train.init_strict, ema=args.ema)
    if "ema" in checkpoint and not args.ema:
        print(f"{weights} also has averaged weights; --ema uses them")

    # Checkpoints count from 0, results from 1.
    iteration = checkpoint.get("iteration")
    origin = provenance(args.config_file, cfg.train.seed, device)
    facts = {
        "weights": str(weights),
        "ema": args.ema,
        "iteration": None if iteration is None else iteration + 1,
        **{k: origin[k] for k in ("config", "command", "commit", "hardware", "versions", "time")},
    }
    return model.to(device), instantiate(mapper.augmentations), checkpoint, facts


def build_onnx_detector(args: argparse.Namespace) -> tuple[OnnxDetector, dict[str, Any]]:
    """Open an exported file, and collect where it comes from.

    Args:
        args: parsed arguments of the command line.

    Returns:
        The detector and its provenance.

    Raises:
        ValueError: an argument only makes sense for a checkpoint.
        ExportError: the file cannot be used.
        FileNotFoundError: there is no such file.
    """
    if args.config_file or args.ema or args.opts:
        raise ValueError(
            f"{args.weights} contains its model; leave out --config-file, --ema and overrides"
        )

    detector = OnnxDetector(args.weights)
    described = detector.description
    origin = provenance("", 0, torch.device("cpu"))
    facts = {
        "weights": str(args.weights),
        "exported_from": described.weights,
        "weights_sha256": described.weights_sha256,
        "ema": described.ema,
        "iteration": None,
        "config": None,
        # The command's own config and seed are not those of the training, so both are left out.
        **{key: origin[key] for key in ("command", "commit", "hardware", "versions", "time")},
    }
    return detector, facts


def exported_class_names(given: Sequence[str] | None, detector: OnnxDetector) -> list[str]:
    """Choose the names of the classes of an exported file.

    Args:
        given: names of the command line, or None.
        detector: exported detector, whose file has names.

    Raises:
        ValueError: the number of names differs from the number of classes of the file.
    """
    names = detector.description.classes
    if given and len(given) != len(names):
        raise ValueError(f"--classes has {len(given)} names, the file {len(names)} classes")
    return list(given or names)


def class_names(given: Sequence[str] | None, cfg: DictConfig) -> list[str]:
    """Choose the names of the classes, and print a line if there are none.

    Args:
        given: value of the command line, or None.
        cfg: config, whose test dataset has the names otherwise.

    Returns:
        A name for each class, or none at all: then results contain class indices.

    Raises:
        ConfigError: the number of names differs from the number of classes of the model.
    """
    wanted = cfg.model.get("num_classes")
    if given:
        if wanted is not None and len(given) != wanted:
            raise ConfigError(f"--classes has {len(given)} names, the model {wanted} classes")
        return list(given)

    # The names of a built-in dataset are known without its files.
    register_builtin()
    dataset = (cfg.dataloader.test.get("dataset") or {}).get("names") or "none"
    dataset = dataset if isinstance(dataset, str) else dataset[0]
    names: list[str] = []
    if dataset in DatasetCatalog.list():
        names = list(MetadataCatalog.get(dataset).get("thing_classes", []))

    if not names:
        print(f"No class names: dataset {dataset} is not registered; writing class indices")
    elif wanted is not None and len(names) != wanted:
        print(
            f"Dataset {dataset} has {len(names)} classes, the model {wanted}: writing class "
            "indices; name them with --classes"
        )
        names = []

    return names


def damage_of(
    detector: ImageDetector | ClipDetector | OnnxDetector | OnnxClipDetector,
    origin: dict[str, Any],
) -> str | None:
    """Describe weights that are NaN or infinite in a sentence.

    Args:
        detector: detector whose model was loaded.
        origin: provenance of the weights, as the builders of detectors return it.

    Returns:
        The sentence; None if all weights are finite, or lie in an exported file.
    """
    if isinstance(detector, OnnxDetector | OnnxClipDetector):
        return None
    damage = describe_damage(detector.model)
    return f"{origin['weights']} {damage}" if damage else None
