"""Measure how well a pre-trained model tells the objects of held-out images apart.

Example::

    python -m rsd2.projects.mutdet.measure_pretraining --run output/study/pretrain/mutdet \\
        --labels output/study/data/pseudo/synthetic_heldout \\
        --images output/study/data/synthetic/heldout/images --output output/study/measure/mutdet

The pseudo-boxes and embeddings of the images are made as those of the pre-training, with its
reduction. The averaged weights are measured if there are any. ``results.json`` gets, in percent,
the retrieval of the own object among those of its image, by the decoder on plain tokens, by the
decoder on enhanced ones and by the enhanced tokens, the same by chance, and the cosine of different
targets of an image. It also gets the lengths of the gradients that the parts of the loss send to
the encoder, and their cosines with that of the siamese run's detection losses: what fine-tuning
will need is trained by the last of them.
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
_GRADIENT_BATCHES = 8
_PARTS = ("siamese detection", "enhanced detection", "alignment")


class Measurement:
    """A pre-trained model and the images that it is measured on.

    Args:
        run: output folder of a pre-training.
        labels: pseudo-labels with embeddings of the images.
        images: folder of the images.
    """

    def __init__(self, run: Path, labels: Path, images: Path) -> None:
        cfg = load_config(run / "config.yaml")
        self.model = instantiate(cfg.model)
        load_weights(self.model, run / "model_final.pth", ema=cfg.train.ema.enabled)
        # Losses and telemetry instead of detections, but without dropout in the parts.
        self.model.eval()
        self.model.training = True

        # Images as they are: no flips and turns.
        settings = cfg.dataloader.train.mapper
        settings.augmentations = settings.augmentations[:1]
        mapper = instantiate(settings)
        self.inputs = [mapper(one) for one in get_pseudo_dicts(labels, images, cfg.model.classes)]
        self.steps, self.batch = int(cfg.train.max_iter), cfg.dataloader.train.total_batch_size

    def agreement(self) -> dict[str, float | None]:
        """Average the agreement of predictions and targets over images.

        Returns:
            The keys of `METRICS` -> mean over the images with two objects or more, in percent;
            None for what the model does not have.
        """
        torch.manual_seed(_SEED)  # denoising queries and the choice in crowded images are random
        values = defaultdict(list)
        for one in self.inputs:
            # The targets are those of the end of the training.
            with torch.no_grad(), EventStorage(self.steps) as storage:
                self.model([one])
                for name, (value, _) in storage.latest().items():
                    values[name].append(value)

        means = {name: 100 * float(np.mean(found)) for name, found in values.items()}
        return {name: means.get(name) for name in METRICS}

    def gradients(self) -> dict[str, dict[str, float]]:
        """Compare the gradients of the parts of the loss at the encoder's parameters.

        Returns:
            Part -> ``length``, the mean over batches, and ``cosine`` with the detection losses on
            plain tokens; without enhanced tokens there are two parts.
        """
        torch.manual_seed(_SEED)
        parameters = list(self.model.encoder.parameters())
        lengths, cosines = defaultdict(list), defaultdict(list)
        for start in range(0, _GRADIENT_BATCHES * self.batch, self.batch):
            batch = self.inputs[start : start + self.batch]
            if not batch:
                break

            with EventStorage(self.steps):
                losses = self.model(batch)
            found = {}
            for part in _PARTS:
                values = [value for name, value in losses.items() if _part_of(name) == part]
                if values:
                    # The second run and the heads share the graph with the first.
                    rows = torch.autograd.grad(sum(values), parameters, retain_graph=True)
                    found[part] = torch.cat([row.flatten() for row in rows])

            for part, gradient in found.items():
                lengths[part].append(float(gradient.norm()))
                cosine = torch.cosine_similarity(gradient, found[_PARTS[0]], dim=0)
                cosines[part].append(float(cosine))
        return {
            part: {"length": float(np.mean(lengths[part])), "cosine": float(np.mean(cosines[part]))}
            for part in lengths
        }


def _part_of(name: str) -> str:
    """Return the part of the loss that a loss belongs to."""
    if "embedding" in name:
        return _PARTS[2]
    return _PARTS[1] if name.startswith("enhanced_") else _PARTS[0]


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
    measurement = Measurement(args.run, args.labels, args.images)
    result = {
        **provenance(f"{args.run.name}/config.yaml", train.seed, torch.device("cpu")),
        "max_iter": train.max_iter,
        # Named as the trainer names the scores of averaged weights.
        "results": {"ema/bbox" if train.ema.enabled else "bbox": measurement.agreement()},
        "gradients": measurement.gradients(),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output / "results.json", json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
