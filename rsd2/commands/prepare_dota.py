"""Cut DOTA images and labels into tiles. Interrupted runs continue where they stopped.

Example::

    python tools/prepare_dota.py --images datasets/dota/v1.0/train/images \\
        --labels datasets/dota/v1.0/train/labelTxt \\
        --output datasets/dota/v1.0/tiles/train_1024_200 --window 1024 --overlap 200
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rsd2.data.formats.label_report import REMEDIES
from rsd2.data.windows.tile_index import INDEX_NAME, TileIndex
from rsd2.data.windows.tile_writer import write_tiles
from rsd2.data.windows.tiling import TilingParameters
from rsd2.io.folder_run import run_command, shard_from_environment


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="DIR", help="folders of full images")
    add("--labels", nargs="+", metavar="DIR", help="their label folders; none for a test set")
    add("--output", required=True, metavar="DIR", help="gets images, labelTxt and tiles.json")
    add("--window", type=int, default=1024, help="side of the windows at rate 1, pixels")
    add("--overlap", type=int, default=200, help="overlap of windows at rate 1, pixels")
    add("--rates", type=float, nargs="+", default=[1.0], help="scales: windows are window / rate")
    add(
        "--min-image-fraction", type=float, default=0.6, help="share of a window that must be image"
    )
    add("--min-object-fraction", type=float, default=0.7, help="share of an object to be shown")
    add(
        "--padding",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fill windows that leave the image; else cut them at its border",
    )
    add("--clip-objects", action="store_true", help="cut objects at the window's border")
    add("--drop-empty", action="store_true", help="write no tile without objects")
    add(
        "--out-of-image",
        choices=["keep", "clip", "drop", "error"],
        default="keep",
        help="objects outside the image or crossing its border; reported in any case",
    )
    add(
        "--missing-label",
        choices=["empty", "drop", "error"],
        default="empty",
        help="images without label file; reported in any case",
    )
    add(
        "--exif-orientation",
        choices=["ignore", "obey"],
        default="ignore",
        help="turn photographs upright as their EXIF data say (obey), or use the pixels as they "
        "are stored (ignore, the default), with a warning",
    )
    add("--num-workers", type=int, default=os.cpu_count() or 1, help="processes; 0: none extra")
    return parser


def describe(index: TileIndex, output: str) -> str:
    """Describe the finished folder, with every kind of problem and its first examples.

    Args:
        index: index of the finished folder.
        output: path of the folder.

    Returns:
        several lines.
    """
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in index.counts.items()]
    for kind, fates in index.report["counts"].items():
        numbers = ", ".join(f"{number} {fate}" for fate, number in fates.items())
        lines.append(f"PROBLEM {kind} ({numbers}): {REMEDIES[kind]}")
        # Five examples are enough to recognize the cause; the index has all of them.
        found = [p for p in index.report["problems"] if p["kind"] == kind]
        for problem in found[:5]:
            where = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
            lines.append(f"  {where}: {problem['message']}")

    lines.append(f"Index with all problems: {Path(output) / INDEX_NAME}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        0 if done, 2 if the input or the output folder cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    parameters = TilingParameters(
        window=args.window,
        overlap=args.overlap,
        rates=tuple(args.rates),
        min_image_fraction=args.min_image_fraction,
        min_object_fraction=args.min_object_fraction,
        padding=args.padding,
        clip_objects=args.clip_objects,
        keep_empty=not args.drop_empty,
    )
    index = write_tiles(
        args.images,
        args.labels,
        args.output,
        parameters,
        out_of_image=args.out_of_image,
        missing_label=args.missing_label,
        exif=args.exif_orientation,
        num_workers=args.num_workers,
        shard=shard_from_environment(),
    )
    # Other shards may still be cutting; only a complete folder has an index.
    if index is None:
        print("This shard is done; the last process to finish writes the index.")
    else:
        print(describe(index, args.output))
