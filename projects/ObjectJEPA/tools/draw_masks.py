#!/usr/bin/env python
"""Draw what a pre-training step makes of images: boxes, kept tokens, loss set, error per token.

    CONFIG=projects/ObjectJEPA/configs/object_jepa_vit_s_dota_pretrain.py
    python projects/ObjectJEPA/tools/draw_masks.py --config-file $CONFIG
    python projects/ObjectJEPA/tools/draw_masks.py --config-file $CONFIG \\
        --weights output/model_final.pth --images images --labels labelTxt --classes plane ship
    python projects/ObjectJEPA/tools/draw_masks.py --config-file $CONFIG \\
        --images images model.masks.mode=hard

Images come from the config's training set, from --dataset, or from a folder in DOTA's format;
without labels they have no objects. They go through the config's mapper, crops included. Patches of
objects are framed in yellow, the loss set in blue, and in red where it shows objects. Without
--weights the model has its initial ones, and the errors say nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig
from torch import nn
from tqdm import tqdm

from rsd2.config import ConfigError, load_config
from rsd2.data.datasets import DOTA_V2_0_CLASSES, load_dota_instances, register_builtin
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.projects.object_jepa.mask_drawing import draw_masks
from rsd2.projects.object_jepa.object_jepa import pad_boxes
from rsd2.weights.checkpoint import load_weights
from rsd2.weights.errors import CheckpointError


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="of a pre-training")
    add("--weights", type=Path, metavar="FILE", help="checkpoint of a pre-training")
    add("--dataset", metavar="NAME", help="a registered data set instead of the config's")
    add("--images", metavar="DIR", help="a folder of images instead")
    add("--labels", metavar="DIR", help="its label files in DOTA's format")
    add("--classes", nargs="+", metavar="NAME", help="its classes; those of DOTA-v2.0 by default")
    add("--output", type=Path, default=Path("masks"), metavar="DIR", help="gets the PNG files")
    add("--num-images", type=int, default=8, help="images to draw (default 8)")
    add("--seed", type=int, default=0, help="of crops and masks (default 0)")
    add("--progress", type=float, default=0.0, help="of the training, for schedules (0 to 1)")
    add("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the config, as for training")
    return parser


def find_records(args: argparse.Namespace, cfg: DictConfig) -> Sequence[dict[str, Any]]:
    """Find the images.

    Args:
        args: of the command line.
        cfg: the config.

    Returns:
        dataset dicts, one at least.

    Raises:
        ValueError: two sources are named, or there is no image.
    """
    if args.images and args.dataset:
        raise ValueError("--images and --dataset are two sources; give one")
    if args.labels and not args.images:
        raise ValueError("--labels needs --images")
    if args.images:
        classes = args.classes or list(DOTA_V2_0_CLASSES)
        records = load_dota_instances(args.labels, args.images, classes)
    elif args.dataset:
        records = DatasetCatalog.get(args.dataset)
    else:
        records = instantiate(cfg.dataloader.train.dataset)
    if not len(records):
        raise ValueError(f"there are no images in {args.images or args.dataset or 'the data set'}")
    return records


@torch.no_grad()
def draw(model: nn.Module, inputs: dict[str, Any], seed: int, image_format: str) -> np.ndarray:
    """Draw one image.

    Args:
        model: an ``ObjectJEPA`` in evaluation mode.
        inputs: of the mapper.
        seed: of the mask.
        image_format: of ``image``, "RGB" or "BGR".

    Returns:
        (height, width, 3) uint8 RGB.
    """
    output = model.analyze([inputs], torch.Generator().manual_seed(seed))
    image = inputs["image"].permute(1, 2, 0).numpy()
    size = model.context_encoder.patch_size
    return draw_masks(
        np.ascontiguousarray(image[..., ::-1] if image_format == "BGR" else image),
        pad_boxes([inputs])[0][0].numpy(),
        grid=(image.shape[0] // size, image.shape[1] // size),
        object_tokens=output.masks.object_tokens[0].cpu().numpy(),
        keep=output.masks.keep[0].cpu().numpy(),
        predicted=output.masks.predicted[0].cpu().numpy(),
        errors=output.token_loss[0].float().cpu().numpy(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 2 if the input cannot be used.
    """
    args = get_parser().parse_intermixed_args(argv)
    register_builtin()
    try:
        if args.num_images < 1 or args.seed < 0 or not 0 <= args.progress <= 1:
            raise ValueError(
                "--num-images is at least 1, --seed at least 0 and --progress in [0, 1], got "
                f"{args.num_images}, {args.seed} and {args.progress}"
            )
        cfg = load_config(args.config_file, args.opts)
        records = find_records(args, cfg)
        seed_all_rng(args.seed)
        model = instantiate(cfg.model).eval()
        if args.weights:
            load_weights(model, args.weights)
        model.progress = args.progress
        mapper = instantiate(cfg.dataloader.train.mapper)
        make_output_folder(args.output)
        for index in tqdm(range(min(args.num_images, len(records))), desc="images"):
            inputs = mapper(records[index])
            picture = draw(model, inputs, args.seed + index, mapper.image_format)
            data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
            name = str(inputs["image_id"]).replace("/", "_")
            write_atomically(args.output / f"{name}.png", data)
    except (ValueError, OSError, KeyError, ConfigError, CheckpointError) as error:
        print(f"draw_masks: {error}", file=sys.stderr)
        return 2
    print(f"pictures: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
