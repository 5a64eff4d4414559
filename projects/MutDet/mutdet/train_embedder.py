"""Train a small backbone on unlabelled crops of generated scenes. Interrupted runs continue.

Example::

    python projects/MutDet/tools/train_embedder.py --output output/backbone.pth

It plays the part of the ImageNet backbone where no weights can be had: extract_embeddings.py embeds
boxes with it (--backbone small), and every arm of a comparison starts from it. The file's ``model``
holds ``backbone.*`` of configs/common/models/rotated_deformable_detr_small.py and nothing else, so
it starts a detector by::

    train.init_checkpoint=output/backbone.pth train.init_inherit.parts=[backbone]

No labels are used: two views of a crop have to find each other among other crops. The scenes have a
seed of their own. Afterwards the features are tested on true objects of yet other scenes: each is
named by its nearest neighbours, and the share of right names is printed beside that of random
weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rsd2.projects.mutdet.command_line import run_guarded
from rsd2.projects.mutdet.embedder_training import (
    EmbedderSettings,
    draw_crops,
    find_finished,
    measure_embedder,
    train_embedder,
)

_HELP = {
    "steps": "of the optimizer",
    "batch_size": "crops per step, each in two views",
    "view_size": "of the views, pixels",
    "scenes": "to draw and train on",
    "image_size": "of the scenes, pixels",
    "scene_seed": "of the scenes; use one that no other data has",
    "temperature": "of the loss",
    "lr": "highest rate",
    "seed": "of weights and views",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="gets the backbone, .pth")
    for field in fields(EmbedderSettings):
        add(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{_HELP[field.name]} (default {field.default})",
        )
    add("--num-workers", type=int, default=0, help="processes that draw; 0: none extra (default)")
    add("--test-scenes", type=int, default=100, help="for the test; 0: no test (default 100)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 2 if an argument or a file cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_guarded("train_embedder", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    settings = EmbedderSettings(**{f.name: getattr(args, f.name) for f in fields(EmbedderSettings)})
    about = find_finished(args.output, settings)
    if about is None:
        bank = draw_crops(settings, num_workers=args.num_workers)
        about = train_embedder(bank, settings, args.output)
    print(f"{args.output}: {about['steps']} steps, {about['crops']} crops, last loss ", end="")
    print(f"{about['last_loss']:.3f}")
    if args.test_scenes > 0:
        found = measure_embedder(
            args.output, settings, scenes=args.test_scenes, num_workers=args.num_workers
        )
        for row in found:
            print(
                f"{row['backbone']}, {'whitened' if row['whiten'] else 'plain'}: of "
                f"{row['objects']} true objects, {row['accuracy']:.3f} are of the class of their "
                f"nearest neighbours; {row['mean_class_accuracy']:.3f} as the mean over classes"
            )


if __name__ == "__main__":
    sys.exit(main())
