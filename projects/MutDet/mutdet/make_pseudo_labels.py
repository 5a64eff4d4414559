"""Propose objects on unlabelled images and write them as rotated boxes. Interrupted runs continue.

Example::

    python projects/MutDet/tools/make_pseudo_labels.py --images datasets/synthetic/train/images \\
        --output datasets/pseudo/synthetic_train_boxes
    python projects/MutDet/tools/make_pseudo_labels.py --images datasets/dota/tiles/images \\
        --output output/sam_boxes --source sam --sam-checkpoint sam_vit_h_4b8939.pth \\
        --device cuda --amp bfloat16 --points-per-batch 256

The source "felzenszwalb" needs no weights, "sam" is Segment Anything. Several processes or machines
share a run by --shard 0/4 ... 3/4, or under torchrun; the last one writes the page of statistics.
With --recall-against, boxes are compared with true objects, where these are known; the comparison
has no influence on them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from rsd2.data.formats.pseudo_labels import PseudoLabelError, find_shards, read_folder
from rsd2.inference.sliding_window import WindowParameters
from rsd2.io.folder_run import parse_shard, run_command, shard_from_environment
from rsd2.projects.mutdet.box_filters import FELZENSZWALB_FILTERS, BoxFilters
from rsd2.projects.mutdet.label_recall import (
    Truth,
    format_recall,
    measure_recall,
    truth_of_dataset,
    truth_of_dota_folder,
)
from rsd2.projects.mutdet.label_run import Labeller, label_folder
from rsd2.projects.mutdet.label_statistics import measure, write_statistics
from rsd2.projects.mutdet.proposals import FelzenszwalbProposals, ProposalSource
from rsd2.projects.mutdet.sam_proposals import AMP_DTYPES, SamProposals, SamSettings, load_sam


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="images, sub-folders included")
    add("--output", type=Path, required=True, metavar="DIR", help="for shards and statistics")
    add("--source", choices=("felzenszwalb", "sam"), default="felzenszwalb", help="of proposals")
    add("--shard", type=parse_shard, metavar="I/N", help="part of the run; default: torchrun's")
    add("--num-workers", type=int, help="processes (default: one per core; 0 for sam)")
    add("--part-size", type=int, default=16, help="images between two savings (default 16)")
    add(
        "--unreadable",
        choices=("error", "skip"),
        default="error",
        help="images that cannot be read: stop, or count, list and go on",
    )
    add(
        "--recall-against",
        metavar="DIR|NAME",
        help="label folder in DOTA's format, or a registered dataset, to compare with",
    )
    add(
        "--official-boxes",
        action="store_true",
        help="masks to boxes as MutDet's script: longest contour, pixel indices, clipped at 0 only",
    )
    group = parser.add_argument_group("windows", "of images that are larger; none by default")
    group.add_argument("--window", type=int, metavar="N", help="side of the windows, pixels")
    group.add_argument("--overlap", type=int, default=200, help="of neighbours (default 200)")
    group.add_argument("--seams", choices=("drop", "keep"), default="drop",
        help="pieces of objects at the seams of windows go where another window shows more "
        "(default), or stay")  # fmt: skip
    _add_filters(parser)
    _add_felzenszwalb(parser)
    _add_sam(parser)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "filters", "'none' switches one off; defaults: none for sam, for felzenszwalb as shown"
    )
    texts = {
        "min_side": "shorter side, pixels, at least",
        "min_area": "square pixels, at least",
        "max_area_fraction": "share of the image, at most",
        "max_aspect": "longer over shorter side, at most",
        "min_score": "of the source, at least",
        "duplicate_iou": "rotated IoU above which the worse of two boxes goes",
        "max_density": "boxes per 100 x 100 pixels, at most",
        "top_k": "boxes per image, at most",
    }

    for field in fields(BoxFilters):
        # SUPPRESS tells given options from defaults, which differ between the sources.
        default = getattr(FELZENSZWALB_FILTERS, field.name)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=integer_or_none if field.name == "top_k" else number_or_none,
            default=argparse.SUPPRESS,
            help=f"{texts[field.name]} (felzenszwalb: {'none' if default is None else default})",
        )


def _add_felzenszwalb(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("felzenszwalb: segments of several scales")
    add, default = group.add_argument, FelzenszwalbProposals()
    scales = " ".join(f"{scale:g}" for scale in default.scales)
    add("--scales", type=float, nargs="+", default=default.scales, help=f"default {scales}")
    add("--sigma", type=float, default=default.sigma, help=f"smoothing (default {default.sigma})")
    add(
        "--min-size",
        type=int,
        default=default.min_size,
        help=f"pixels (default {default.min_size})",
    )
    add(
        "--max-segment-fraction",
        type=float,
        default=default.max_area_fraction,
        help=f"larger segments are background (default {default.max_area_fraction})",
    )


def _add_sam(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sam: Segment Anything's automatic masks, with its defaults")
    group.add_argument("--sam-model", default="vit_h", help="vit_h, vit_l or vit_b (default vit_h)")
    group.add_argument("--sam-checkpoint", type=Path, metavar="FILE", help="its weights")
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default cpu)")
    group.add_argument("--amp", choices=tuple(AMP_DTYPES), default="none", help="lower precision")

    for field in fields(SamSettings):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"default {field.default:g}",
        )


def number_or_none(text: str) -> float | None:
    """Read a number, or 'none'."""
    return None if text == "none" else float(text)


def integer_or_none(text: str) -> int | None:
    """Read a whole number, or 'none'."""
    return None if text == "none" else int(text)


def make_labeller(args: argparse.Namespace) -> Labeller:
    """Build source and filters from the command line.

    Args:
        args: parsed command line.

    Returns:
        The labeller.

    Raises:
        ValueError: a value is out of range, or a checkpoint that does not fit.
        ImportError: ``sam`` was chosen and its package is missing.
        FileNotFoundError: there is no checkpoint.
    """
    given = {f.name: getattr(args, f.name) for f in fields(BoxFilters) if hasattr(args, f.name)}
    windows = None
    if args.window is not None:
        windows = WindowParameters(args.window, args.overlap, seams=args.seams)
    if args.source == "felzenszwalb":
        source: ProposalSource = FelzenszwalbProposals(
            tuple(args.scales), args.sigma, args.min_size, args.max_segment_fraction
        )
        filters = replace(FELZENSZWALB_FILTERS, **given)
        return Labeller(source, filters, args.official_boxes, windows)

    if args.sam_checkpoint is None:
        raise ValueError("--source sam needs --sam-checkpoint, a file such as sam_vit_h_4b8939.pth")

    model, name = load_sam(args.sam_model, args.sam_checkpoint, device=args.device)
    settings = SamSettings(**{f.name: getattr(args, f.name) for f in fields(SamSettings)})
    source = SamProposals(model, settings, amp=args.amp, name=name)
    return Labeller(source, BoxFilters(**given), args.official_boxes, windows)


def find_truth(name: str) -> Truth:
    """Open a label folder, or a registered dataset.

    Args:
        name: name of the folder or the dataset.

    Returns:
        The reader of true objects.

    Raises:
        ValueError: the name is neither.
    """
    if Path(name).is_dir():
        return truth_of_dota_folder(name)

    # Imported here: registering the datasets is needed for this option only.
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from rsd2.data.datasets.builtin import register_builtin

    register_builtin()
    if name not in DatasetCatalog.list():
        raise ValueError(f"--recall-against {name}: neither a folder nor a registered dataset")
    return truth_of_dataset(DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes)


def report(args: argparse.Namespace, truth: Truth | None) -> None:
    """Write the page of statistics, and print a summary.

    Args:
        args: parsed command line.
        truth: truth to compare with, or None.
    """
    records, header = read_folder(args.output)
    recall = None if truth is None else measure_recall(records, truth)
    page = write_statistics(args.output, records, header, args.images, recall=recall)
    numbers = measure(records, header)

    print(
        f"{numbers['boxes']} boxes on {numbers['images']} images, "
        f"{numbers['images_without_boxes']} of them without any; "
        f"{numbers['boxes'] / max(len(records), 1):.1f} per image."
    )
    for name, reason in list(header.skipped.items())[:10]:
        print(f"UNREADABLE {name}: {reason}")

    if header.skipped:
        print(
            f"{len(header.skipped)} images could not be read and have no labels; all are listed in "
            "the statistics. To label them after all, repair them, delete the shards and run again."
        )

    if recall is not None:
        print(format_recall(recall))
    print(f"Statistics: {page}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: command line; that of the process if None.

    Returns:
        0 if done, 2 if an argument, an image or the folder cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    # Before the labelling, which may take hours: a wrong name must not wait until its end.
    truth = None if args.recall_against is None else find_truth(args.recall_against)
    workers = args.num_workers
    if workers is None:
        # SAM's model lives on one device; more processes would only load it again.
        workers = 0 if args.source == "sam" else (os.cpu_count() or 1)

    label_folder(
        args.images,
        args.output,
        make_labeller(args),
        skip_unreadable=args.unreadable == "skip",
        shard=args.shard or shard_from_environment(),
        num_workers=workers,
        part_size=args.part_size,
    )

    try:
        find_shards(args.output)
    except PseudoLabelError:
        print("This shard is done; the last process to finish writes the statistics.")
        return

    report(args, truth)


if __name__ == "__main__":
    sys.exit(main())
