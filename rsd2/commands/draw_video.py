"""Draw labelled videos: one as a video file, or frames of several on a contact sheet.

Boxes mark labelled objects; yellow lines show the last twelve frames of a track.

Example::

    python tools/draw_video.py --root datasets/synthetic_video --split test --output sheet.png
    python tools/draw_video.py --dataset rscardata_test --video 003 --output 003.mp4
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from tqdm import tqdm

from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.datasets.rscardata import RSCARDATA_LABELS, load_rscardata
from rsd2.data.drawing.boxes import make_contact_sheet
from rsd2.data.drawing.videos import VIDEO_CODECS, draw_record, group_videos, write_video
from rsd2.io.program import print_error
from rsd2.synthetic import RSCARDATA_SPLITS


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="a registered dataset of videos")
    add("--root", metavar="DIR", help="or a folder in RsCarData's format")
    add("--split", choices=tuple(RSCARDATA_SPLITS), default="train", help="split of --root")
    add("--labels", choices=RSCARDATA_LABELS, default="new", help="labels of --root")
    add("--output", required=True, metavar="FILE", help=".png: sheet; .mp4, .avi: video")
    add(
        "--video",
        nargs="*",
        metavar="NAME",
        help="videos to draw; a video file takes one; the first by default",
    )
    add("--num-videos", type=int, default=4, help="videos on a sheet, without --video")
    add("--columns", type=int, default=4, help="frames of each video on a sheet, evenly spread")
    add("--cell-size", type=int, default=512, help="side of a picture on a sheet, pixels")
    add("--start", type=int, default=1, help="first frame")
    add("--num-frames", type=int, help="frames of the video file; all by default")
    add("--zoom", type=int, default=2, help="enlarges frames, because vehicles have few pixels")
    add("--rate", type=float, default=10.0, help="frames per second of the video file")
    add("--bare", action="store_true", help="draw frames without labels")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Check that the requested drawing is possible.

    Args:
        args: parsed arguments of the command line.

    Raises:
        ValueError: for another suffix, a number out of range, or several videos for one file.
    """
    suffix = Path(args.output).suffix.lower()
    if suffix not in (".png", *VIDEO_CODECS):
        raise ValueError(f"--output {args.output} must end in .png, {', '.join(VIDEO_CODECS)}")
    for name, least in (("num_videos", 1), ("columns", 1), ("cell_size", 16), ("num_frames", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")

    # A sheet has a row for each video, a video file has no place for a second one.
    if suffix != ".png" and len(args.video or ()) > 1:
        raise ValueError(f"{args.output} holds one video, got {args.video}; name one, or a .png")


def read_videos(args: argparse.Namespace) -> dict[str, list[dict]]:
    """Read the videos that the command line names.

    Args:
        args: parsed arguments of the command line.

    Returns:
        video -> dataset dicts of its frames from ``--start`` on.

    Raises:
        ValueError: if there is no such video, or if nothing names what to draw.
    """
    if bool(args.dataset) == bool(args.root):
        raise ValueError("Say what to draw: --dataset NAME, or --root DIR.")
    if args.dataset:
        records = DatasetCatalog.get(args.dataset)
        if not all("video_id" in record for record in records):
            raise ValueError(f"{args.dataset} has no videos; tools/visualize_data.py draws images")
    else:
        records = load_rscardata(args.root, args.split, args.labels)

    videos = group_videos(records)
    names = args.video or list(videos)[: args.num_videos]
    unknown = [name for name in names if name not in videos]
    if unknown:
        raise ValueError(f"There are no videos {unknown}; there are {list(videos)[:20]}")
    chosen = {name: [r for r in videos[name] if r["frame_id"] >= args.start] for name in names}
    short = [name for name, records in chosen.items() if not records]
    if short or not chosen:
        raise ValueError(f"No frame from {args.start} on in videos {short}; lower --start")
    return chosen


def drawn_frames(
    records: list[dict], indices: list[int], args: argparse.Namespace
) -> Iterator[np.ndarray]:
    """Yield drawn frames of a video.

    Args:
        records: dataset dicts of the video, by frame.
        indices: indices of the frames to draw.
        args: parsed arguments of the command line.

    Yields:
        (H, W, 3) uint8 RGB.
    """
    for index in tqdm(indices, desc=f"video {records[0]['video_id']}", unit="frame"):
        # Newest first, as the drawing of tracks expects them.
        earlier = records[max(0, index - 12) : index][::-1]
        yield draw_record(records[index], earlier, zoom=args.zoom, show_boxes=not args.bare)


def draw_sheet(videos: dict[str, list[dict]], args: argparse.Namespace) -> np.ndarray:
    """Draw some frames of each video, a video in each row.

    Args:
        videos: video -> dataset dicts by frame.
        args: parsed arguments of the command line.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    images: list[np.ndarray] = []
    captions: list[str] = []
    for name, records in videos.items():
        # Always the same number of pictures, so that each video is one row.
        indices = np.linspace(0, len(records) - 1, args.columns).astype(int).tolist()
        images += drawn_frames(records, indices, args)
        captions += [
            f"{name}, frame {records[k]['frame_id']}, {len(records[k]['annotations'])} objects"
            for k in indices
        ]

    return make_contact_sheet(images, captions, columns=args.columns, cell_size=args.cell_size)


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        0 if done, 2 if the input cannot be used.
    """
    args = get_parser().parse_args(argv)
    output = Path(args.output)
    register_builtin()
    try:
        check_arguments(args)
        videos = read_videos(args)
        if output.suffix.lower() == ".png":
            sheet = draw_sheet(videos, args)
            output.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{output} cannot be written; check the folder and the free space")
        else:
            records = next(iter(videos.values()))
            indices = list(range(len(records)))[: args.num_frames]
            write_video(output, drawn_frames(records, indices, args), args.rate)
    except (ValueError, OSError, KeyError) as error:
        print_error(error)
        return 2

    print(f"Drawn: {output}")
    return 0
