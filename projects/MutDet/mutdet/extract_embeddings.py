"""Compute embeddings and pseudo-classes of pseudo-boxes. Interrupted runs continue.

Example::

    python projects/MutDet/tools/extract_embeddings.py --boxes output/sam_boxes \\
        --images datasets/dota/tiles/images --output datasets/pseudo/dota \\
        --weights resnet50.pth --image-size 1024 --device cuda
    python projects/MutDet/tools/extract_embeddings.py --boxes output/boxes \\
        --images datasets/synthetic/train/images --output datasets/pseudo/synthetic_train \\
        --backbone small --weights output/embedder/model_final.pth \\
        --crop-size 64 --dim 128 --clusters 64

Each box is cropped with some context and turned, goes through a frozen backbone, and its features
are reduced by PCA to unit vectors; k-means makes pseudo-classes of them. Both are fitted on these
boxes, or taken from an earlier run by --reduction, as MutDet does for its other datasets. Several
processes compute features together by --shard 0/4 ... 3/4, or under torchrun; the last one finishes
the run. The output folder is what the configs of the pre-training read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.io.folder_run import parse_shard, run_command, shard_from_environment
from rsd2.projects.mutdet.embedder import BACKBONES, CropSettings, FeatureExtractor, load_backbone
from rsd2.projects.mutdet.embedding_run import EmbeddingRun, FitSettings, embed_folder
from rsd2.projects.mutdet.label_statistics import write_statistics
from rsd2.projects.mutdet.reduction import KMEANS


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, crops, fit = parser.add_argument, CropSettings(), FitSettings()
    add("--boxes", type=Path, required=True, metavar="DIR", help="run of make_pseudo_labels.py")
    add("--images", type=Path, required=True, metavar="DIR", help="images of the boxes")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the finished shards")
    add("--backbone", choices=BACKBONES, default="resnet50", help="default resnet50")
    add("--weights", type=Path, required=True, metavar="FILE", help="weights of the backbone")
    add(
        "--shard", type=parse_shard, metavar="I/N", help="part of the features; default: torchrun's"
    )
    # What determines the features comes first, then what determines the reduction.
    add("--device", default="cpu", help="cpu, cuda or cuda:1 (default cpu)")
    add("--batch-size", type=int, default=64, help="crops at once (default 64)")
    add("--amp", action="store_true", help="run the backbone in bfloat16")
    add("--crop-size", type=int, default=crops.size, help=f"pixels (default {crops.size})")
    add("--context", type=float, default=crops.context, help=f"default {crops.context} x the sides")
    add("--sampling-ratio", type=int, default=crops.sampling_ratio, help="default 2; 0: by size")
    add("--keep-aspect", action="store_true", help="square crops instead of stretched ones")
    add("--image-size", type=int, help="resize longer sides to this first (MutDet: 1024)")
    add("--dim", type=int, default=fit.dim, help=f"width of the embeddings (default {fit.dim})")
    add("--clusters", type=int, default=fit.num_clusters, help=f"default {fit.num_clusters}")
    add(
        "--whiten",
        action=argparse.BooleanOptionalAction,
        default=fit.whiten,
        help="divide components by their deviations (default)",
    )
    add("--kmeans", choices=tuple(KMEANS), default=fit.kmeans, help=f"default {fit.kmeans}")
    add("--max-samples", type=int, default=fit.max_samples, help="boxes that k-means sees")
    add("--seed", type=int, default=fit.seed, help="seed of the sample and of k-means")
    add("--reduction", type=Path, metavar="FILE", help="reduction.npz of another run: fit nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: command line; that of the process if None.

    Returns:
        0 if done, 2 if an argument, an image or a folder cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {args.batch_size}")
    # Raises for an unknown device now, and not after the weights are read.
    torch.device(args.device)

    backbone, name = load_backbone(args.backbone, args.weights)
    crops = CropSettings(
        args.crop_size, args.context, args.sampling_ratio, args.keep_aspect, args.image_size
    )
    extractor = FeatureExtractor(
        backbone,
        crops,
        name=name,
        device=args.device,
        batch_size=args.batch_size,
        amp=args.amp,
    )

    fit = FitSettings(
        dim=args.dim,
        num_clusters=args.clusters,
        whiten=args.whiten,
        kmeans=args.kmeans,
        max_samples=args.max_samples,
        seed=args.seed,
    )

    run = EmbeddingRun(args.boxes, args.images, args.output, extractor)
    if embed_folder(run, fit, given=args.reduction, shard=args.shard or shard_from_environment()):
        records, header = read_folder(args.output)
        print(f"Statistics: {write_statistics(args.output, records, header, args.images)}")


if __name__ == "__main__":
    sys.exit(main())
