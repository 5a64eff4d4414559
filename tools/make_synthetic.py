#!/usr/bin/env python
"""Draw synthetic overhead scenes as a folder in DOTA's format. Interrupted runs continue.

Example::

    python tools/make_synthetic.py --output datasets/synthetic/train --num-images 500 --size 512
    python tools/make_synthetic.py --output datasets/synthetic/small --num-images 800 \\
        --size 128 --scale 0.8 --preview 30
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

import cv2
import numpy as np

from rsd2.data.synthetic import SYNTHETIC_CLASSES, SceneConfig, scene_name, write_dota_scenes

# Red, green, orange, yellow, cyan, magenta, blue; BGR.
_COLORS = (
    (60, 60, 255),
    (60, 255, 60),
    (0, 160, 255),
    (0, 255, 255),
    (255, 255, 0),
    (255, 0, 255),
    (255, 120, 80),
)
_SHEET_SIDE = 1600


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="gets images, labelTxt and scenes.json")
    add("--num-images", type=int, default=100, help="of the finished folder (default 100)")
    add("--size", type=int, nargs="+", default=[512], help="side, or height and width, pixels")
    add("--seed", type=int, default=0, help="of the set; use another one for a validation set")
    add(
        "--scale",
        type=float,
        default=1.0,
        help="size of the objects; at 1 cars are about 15 px long; 0.8 suits --size 128",
    )
    add("--num-workers", type=int, default=os.cpu_count() or 1, help="processes; 0: none extra")
    add("--empty-fraction", type=float, default=0.06, help="share of scenes without objects")
    add("--density", type=float, default=8.0, help="most objects per 100 x 100 units")
    add("--clutter", type=float, default=1.0, help="amount of things that resemble objects")
    add("--preview", type=int, default=0, metavar="N", help="draw N scenes and labels: preview.png")
    return parser


def read_labels(path: Path) -> list[tuple[np.ndarray, str, int]]:
    """Read a label file of this tool.

    Args:
        path: of the file.

    Returns:
        (polygon (4, 2) in pixels, class, difficult) of each object.
    """
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:]]
    return [
        (np.array(row[:8], dtype=np.float64).reshape(4, 2), row[8], int(row[9])) for row in rows
    ]


def draw_preview(folder: Path, num_scenes: int) -> Path:
    """Draw the first scenes with their labels on one sheet.

    Args:
        folder: of the scenes.
        num_scenes: on the sheet, > 0.

    Returns:
        path of the sheet, ``preview.png`` in the folder. A dot marks the first vertex of each
        label; labels of difficult objects are grey.
    """
    columns = math.ceil(math.sqrt(num_scenes))
    tiles = []
    for index in range(num_scenes):
        image = cv2.imread(str(folder / "images" / f"{scene_name(index)}.png"))
        if image is None:
            raise OSError(f"{folder / 'images' / scene_name(index)}.png cannot be read; delete it")
        zoom = max(1, round(_SHEET_SIDE / columns / image.shape[1]))
        tile = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        for polygon, name, difficult in read_labels(
            folder / "labelTxt" / f"{scene_name(index)}.txt"
        ):
            color = (150, 150, 150) if difficult else _COLORS[SYNTHETIC_CLASSES.index(name)]
            # cv2 counts from the centre of the first pixel, labels from its edge.
            fixed = np.rint((polygon * zoom - 0.5) * 16).astype(np.int32)
            cv2.polylines(tile, [fixed], True, color, 1, cv2.LINE_AA, 4)
            first = (int(fixed[0, 0]), int(fixed[0, 1]))
            cv2.circle(tile, first, 2 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        tiles.append(cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255,) * 3))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    path = folder / "preview.png"
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise OSError(f"{path} cannot be written; check the folder and the free space")
    return path


def describe(record: dict) -> str:
    """Say what the folder holds.

    Args:
        record: content of scenes.json of a complete folder.

    Returns:
        a table of several lines.
    """
    total = max(sum(record["objects"].values()), 1)
    lines = [f"{'class':15s} {'objects':>8s} {'share':>7s}"]
    for name, number in record["objects"].items():
        lines.append(f"{name:15s} {number:8d} {number / total:7.1%}")
    lines.append(
        f"{record['num_images']} scenes, {record['empty_images']} of them empty, difficult: "
        + ", ".join(f"{number} x {level}" for level, number in record["difficult"].items())
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 2 if an argument or the folder cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    shard = (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    try:
        config = SceneConfig(
            size=tuple(args.size) if len(args.size) != 1 else args.size[0],
            scale=args.scale,
            empty_fraction=args.empty_fraction,
            density=args.density,
            clutter=args.clutter,
        )
        folder = write_dota_scenes(
            args.output, args.num_images, config, args.seed, args.num_workers, shard=shard
        )
        record = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        if not record["complete"]:
            print("This shard is done; the last of the others counts the objects.")
            return 0
        print(describe(record))
        if args.preview > 0:
            print(f"Preview: {draw_preview(folder, min(args.preview, args.num_images))}")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"make_synthetic: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_synthetic: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
