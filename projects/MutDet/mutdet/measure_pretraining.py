"""Measure how well a pre-trained model tells the objects of held-out images apart.

Example::

    python -m rsd2.projects.mutdet.measure_pretraining --run output/study/pretrain/mutdet \\
        --labels output/study/data/pseudo/synthetic_heldout \\
        --images output/study/data/synthetic/heldout/images --output output/study/measure/mutdet

The pseudo-boxes and embeddings of the images are made as those of the pre-training, with its
reduction. The averaged weights are measured if there are any. ``results.json`` gets, in percent,
the retrieval of the own object among those of its image, by the decoder on plain tokens, by the
decoder on enhanced ones and by the enhanced tokens, the same by chance, and the cosine of different
targets of an image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from rsd2.config import load_config
from rsd2.data.datasets.pseudo import get_pseudo_dicts
from rsd2.engine.defaults import provenance
from rsd2.io.files import write_atomically
from rsd2.weights.checkpoint import load_weights

METRICS = {
    "decoder_image_retrieval": "decoder",
    "enhanced_decoder_image_retrieval": "enhanced decoder",
    "enhanced_encoder_image_retrieval": "enhanced encoder",
    "decoder_image_chance": "chance",
    "decoder_target_cosine": "cosine of targets",
}
"""Measured value, in percent -> title of its column."""
_SEED = 0


def measure(run: Path, labels: Path, images: Path) -> dict[str, float | None]:
    """Average the agreement of predictions and targets over images.

    Args:
        run: output folder of a pre-training.
        labels: pseudo-labels with embeddings of the images.
        images: folder of the images.

    Returns:
        The keys of `METRICS` -> mean over the images with two objects or more, in percent; None
        for what the model does not have.
    """
    cfg = load_config(run / "config.yaml")
    model = instantiate(cfg.model)
    load_weights(model, run / "model_final.pth", ema=cfg.train.ema.enabled)

    # Images as they are: no flips and turns.
    settings = cfg.dataloader.train.mapper
    settings.augmentations = settings.augmentations[:1]
    mapper = instantiate(settings)

    # Losses and telemetry instead of detections, but without dropout in the parts.
    model.eval()
    model.training = True
    torch.manual_seed(_SEED)  # denoising queries and the choice in crowded images are random

    values = defaultdict(list)
    steps = int(cfg.train.max_iter)
    for record in get_pseudo_dicts(labels, images, cfg.model.classes):
        # The targets are those of the end of the training.
        with torch.no_grad(), EventStorage(steps) as storage:
            model([mapper(record)])
            for name, (value, _) in storage.latest().items():
                values[name].append(value)
    return {name: 100 * float(np.mean(values[name])) if values[name] else None for name in METRICS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: command line; that of the process if None.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="output of a pre-training")
    add("--labels", type=Path, required=True, metavar="DIR", help="output of extract_embeddings.py")
    add("--images", type=Path, required=True, metavar="DIR", help="the images")
    add("--output", type=Path, required=True, metavar="DIR", help="gets results.json")
    args = parser.parse_args(argv)

    train = load_config(args.run / "config.yaml").train
    result = {
        **provenance("projects/MutDet", train.seed, torch.device("cpu")),
        "max_iter": train.max_iter,
        # Named as the trainer names the scores of averaged weights.
        "results": {
            "ema/bbox" if train.ema.enabled else "bbox": measure(args.run, args.labels, args.images)
        },
    }
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output / "results.json", json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
