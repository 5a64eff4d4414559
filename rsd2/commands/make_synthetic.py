"""Draw synthetic overhead scenes as a folder in DOTA's format. Interrupted runs continue.

``--kind tiny`` draws people and boats of 2 to 20 pixels in TinyPerson's format instead, and
``--kind video`` satellite videos of moving cars in RsCarData's, with a table of their statistics.
``--georeferenced`` places scenes of any size on the Earth: GeoTIFF files, labels in GeoPackages.

Example::

    python tools/make_synthetic.py --output datasets/synthetic/train --num-images 500 --size 512
    python tools/make_synthetic.py --output datasets/synthetic/small --num-images 800 \\
        --size 128 --scale 0.8 --preview 30
    python tools/make_synthetic.py --kind tiny --output datasets/synthetic_tiny/train \\
        --num-images 400 --size 256 320 --preview 12
    python tools/make_synthetic.py --kind video --output datasets/synthetic_video --split train \\
        --num-images 20 --num-frames 100 --size 512 --preview 4
    python tools/make_synthetic.py --georeferenced --output datasets/synthetic_scenes \\
        --num-images 2 --size 4096 --crs EPSG:32632 --place 9.9 53.5 --preview 2
    python tools/make_synthetic.py --georeferenced --output datasets/harbour --num-images 1 \\
        --size 1024 --tile-size 1024 --themes marina
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rsd2.data.drawing.boxes import make_contact_sheet
from rsd2.data.drawing.videos import draw_record
from rsd2.geo import Radiometry, Raster
from rsd2.geo.labels import read_scene_labels
from rsd2.inference.quicklook import draw_quicklook
from rsd2.io.folder_run import run_command, shard_from_environment
from rsd2.io.image_io import write_image
from rsd2.synthetic import (
    METRES_PER_UNIT,
    RSCARDATA_SPLITS,
    SYNTHETIC_CLASSES,
    TINY_CATEGORIES,
    PlaceConfig,
    SceneConfig,
    TinySceneConfig,
    VideoConfig,
    format_statistics,
    measure_videos,
    read_video_records,
    scene_name,
    write_dota_scenes,
    write_georeferenced_scenes,
    write_tiny_scenes,
    write_videos,
)

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
    add("--output", required=True, metavar="DIR", help="gets images, labels and scenes.json")
    add(
        "--kind",
        choices=("rotated", "tiny", "video", "georeferenced"),
        default="rotated",
        help="DOTA's, TinyPerson's or RsCarData's format, or GeoTIFF with GeoPackage",
    )
    add("--georeferenced", dest="kind", action="store_const", const="georeferenced", help="a kind")
    add("--num-images", type=int, default=100, help="images or videos of the finished folder (100)")
    add(
        "--size",
        type=int,
        nargs="+",
        help="side, or height and width, pixels (512; tiny: 256 320; georeferenced: 2048)",
    )
    add("--split", choices=("train", "test"), help="video only: which to draw (train)")
    add("--num-frames", type=int, help="video only: of each video (120)")
    add("--standing-lanes", type=float, help="video only: share of lanes whose cars stand (0.25)")
    add("--old-label-drop", type=float, help="video only: share of tracks old labels lack (0)")
    add("--seed", type=int, default=0, help="seed of the set; a validation set needs another one")
    add(
        "--scale",
        type=float,
        help="size of the objects, of tiny ones not; at 1 (the default) cars are about 15 px long; "
        "0.8 suits --size 128",
    )
    add("--num-workers", type=int, default=os.cpu_count() or 1, help="processes; 0: none extra")
    add("--empty-fraction", type=float, help="share of scenes without objects (0.06; tiny: 0.04)")
    add("--dense-fraction", type=float, help="tiny only: share with more than 200 objects (0.03)")
    add(
        "--density",
        type=float,
        help="most objects per 100 x 100 units (8); tiny and video: a factor (1)",
    )
    add("--clutter", type=float, help="amount of things that resemble objects")
    themes = tuple(SceneConfig().theme_weights)
    add("--themes", nargs="+", choices=themes, help="kinds of scenes with objects (all)")
    place = parser.add_argument_group("georeferenced only")
    add = place.add_argument
    add("--crs", help="coordinate system (EPSG:32632)")
    add("--place", type=float, nargs=2, metavar=("LON", "LAT"), help="upper left corner (9.9 53.5)")
    add("--gsd", type=float, help="metres of a pixel on the ground (0.33 / scale)")
    add("--rotation", type=float, help="azimuth of the upward side, degrees from north (0)")
    add("--sixteen-bit", action="store_true", default=None, help="numbers of 11 bits in 16")
    add("--striped", action="store_true", default=None, help="strips of rows instead of tiles")
    add("--tile-size", type=int, help="side of the tiles that make a scene, pixels (512)")
    add("--num-tiles", type=int, help="draw so many tiles and repeat them (all new)")
    add = parser.add_argument
    add("--preview", type=int, default=0, metavar="N", help="draw N scenes and labels: preview.png")
    return parser


def read_labels(path: Path) -> list[tuple[np.ndarray, str, int]]:
    """Read a label file of this tool.

    Args:
        path: label file, in ``labelTxt`` or, for tiny scenes, in ``records``.

    Returns:
        (polygon (4, 2) in pixels, class, difficult) of each object; regions to ignore and uncertain
        objects of tiny scenes count as difficult.
    """
    if path.suffix == ".json":
        record = json.loads(path.read_text(encoding="utf-8"))
        return [_tiny_label(annotation) for annotation in record["annotations"]]

    # The first two lines of DOTA's format are a header.
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:]]
    return [
        (np.array(row[:8], dtype=np.float64).reshape(4, 2), row[8], int(row[9])) for row in rows
    ]


def _tiny_label(annotation: dict) -> tuple[np.ndarray, str, int]:
    x, y, width, height = annotation["bbox"]
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    flags = (annotation[flag] for flag in ("ignore", "uncertain", "logo"))
    return corners, TINY_CATEGORIES[annotation["category_id"] - 1], int(any(flags))


def draw_preview(folder: Path, num_scenes: int) -> Path:
    """Draw the first scenes with their labels on one sheet.

    Args:
        folder: folder of the scenes.
        num_scenes: scenes on the sheet, > 0.

    Returns:
        path of the sheet, ``preview.png`` in the folder. A dot marks the first vertex of each
        label; labels of difficult objects are grey.
    """
    columns = math.ceil(math.sqrt(num_scenes))
    tiny = (folder / "records").is_dir()
    classes = TINY_CATEGORIES if tiny else SYNTHETIC_CLASSES
    tiles = []
    for index in range(num_scenes):
        image = cv2.imread(str(folder / "images" / f"{scene_name(index)}.png"))
        if image is None:
            raise OSError(f"{folder / 'images' / scene_name(index)}.png cannot be read; delete it")
        # Whole factors keep the pixels square and sharp on the sheet.
        zoom = max(1, round(_SHEET_SIDE / columns / image.shape[1]))
        tile = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        label_file = (
            f"records/{scene_name(index)}.json" if tiny else f"labelTxt/{scene_name(index)}.txt"
        )
        for polygon, name, difficult in read_labels(folder / label_file):
            color = (150, 150, 150) if difficult else _COLORS[classes.index(name)]

            # cv2 counts from the centre of the first pixel, labels from its edge.
            fixed = np.rint((polygon * zoom - 0.5) * 16).astype(np.int32)
            cv2.polylines(tile, [fixed], True, color, 1, cv2.LINE_AA, 4)
            if not tiny:
                first = (int(fixed[0, 0]), int(fixed[0, 1]))
                cv2.circle(tile, first, 2 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)

        tiles.append(cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255,) * 3))

    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    path = folder / "preview.png"
    write_image(path, np.vstack(rows)[..., ::-1])
    return path


def describe(record: dict) -> str:
    """Describe the content of the folder.

    Args:
        record: content of scenes.json of a complete folder.

    Returns:
        a table of several lines.
    """
    # A folder of empty scenes has no objects, and shares of zero would divide by it.
    total = max(sum(record["objects"].values()), 1)
    lines = [f"{'class':15s} {'objects':>8s} {'share':>7s}"]
    for name, number in record["objects"].items():
        lines.append(f"{name:15s} {number:8d} {number / total:7.1%}")
    head = f"{record['num_images']} scenes, {record['empty_images']} of them empty"
    if "difficult" in record:
        levels = (f"{number} x {level}" for level, number in record["difficult"].items())
        lines.append(f"{head}, difficult: {', '.join(levels)}")
        return "\n".join(lines)

    flags = (f"{record[flag]} {flag}" for flag in ("ignore", "uncertain", "logo"))
    lines.append(f"{head}, {record['dense_images']} dense; also {', '.join(flags)} boxes")
    sizes = (f"{number} {name}" for name, number in record["sizes"].items())
    quantiles = ", ".join(map(str, record["size_quantiles"]))
    lines.append(f"sizes: {', '.join(sizes)}; 5, 25, 50, 75, 95 %: {quantiles} px")
    return "\n".join(lines)


_PLACE_OPTIONS = ("crs", "place", "gsd", "rotation", "sixteen_bit", "striped", "num_tiles")
_OPTIONS = {
    "rotated": ("scale", "empty_fraction", "density", "clutter", "themes"),
    "tiny": ("empty_fraction", "dense_fraction", "density", "clutter"),
    "video": ("split", "num_frames", "density", "standing_lanes", "old_label_drop"),
    "georeferenced": (
        *("scale", "empty_fraction", "density", "clutter", "themes", "tile_size"),
        *_PLACE_OPTIONS,
    ),
}
"""Options of each kind besides ``size``."""
_WRITERS: dict[str, tuple[Callable[..., Any], Callable[..., Path]]] = {
    "rotated": (SceneConfig, write_dota_scenes),
    "tiny": (TinySceneConfig, write_tiny_scenes),
    "video": (VideoConfig, write_videos),
}


def write_scenes(args: argparse.Namespace, shard: tuple[int, int]) -> Path:
    """Draw the scenes that the command line asks for.

    Args:
        args: parsed arguments of the command line.
        shard: (rank, number of processes).

    Returns:
        the folder's record of its parameters.

    Raises:
        ValueError: if an argument is out of range or does not suit the kind.
        FileExistsError: if the folder holds something else.
    """
    # An option of another kind would have no effect, which its user would not notice.
    names = {name for options in _OPTIONS.values() for name in options}
    # A missing option keeps the default of the configuration, so only given ones are passed.
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    foreign = sorted(set(chosen) - set(_OPTIONS[args.kind]))
    if foreign:
        option = foreign[0].replace("_", "-")
        raise ValueError(f"--{option} has no meaning with --kind {args.kind}; leave it out")
    if "themes" in chosen:
        # Their usual frequencies, so that naming all of them changes nothing.
        usual = SceneConfig().theme_weights
        chosen["theme_weights"] = {name: usual[name] for name in chosen.pop("themes")}
    if args.size is not None:
        chosen["size"] = tuple(args.size) if len(args.size) != 1 else args.size[0]
    if args.kind == "georeferenced":
        return _write_georeferenced(args, chosen, shard) / "scenes.json"
    make_config, write = _WRITERS[args.kind]
    place = [args.output]
    if args.kind == "video":
        place.append(chosen.pop("split", "train"))
    written = write(
        *place, args.num_images, make_config(**chosen), args.seed, args.num_workers, shard=shard
    )
    return written if args.kind == "video" else written / "scenes.json"


def _write_georeferenced(args: argparse.Namespace, chosen: dict, shard: tuple[int, int]) -> Path:
    """Draw scenes with a place on Earth; ``chosen`` holds the options of the command line."""
    place = {name: chosen.pop(name) for name in _PLACE_OPTIONS if name in chosen}
    size = chosen.pop("size", 2048)
    if "place" in place:
        place["longitude"], place["latitude"] = place.pop("place")
    place["tiled"] = not place.pop("striped", False)

    # The objects have the size of real ones at this distance of pixels.
    place.setdefault("gsd", round(METRES_PER_UNIT / chosen.get("scale", 1.0), 4))
    return write_georeferenced_scenes(
        args.output,
        args.num_images,
        SceneConfig(size=chosen.pop("tile_size", 512), **chosen),
        PlaceConfig(size=(size, size) if isinstance(size, int) else size, **place),
        args.seed,
        args.num_workers,
        shard=shard,
    )


def draw_georeferenced_preview(folder: Path, num_scenes: int) -> Path:
    """Draw the first scenes with their labels on one sheet.

    Args:
        folder: folder of the scenes.
        num_scenes: scenes on the sheet, > 0.

    Returns:
        path of the sheet, ``preview.png`` in the folder.
    """
    columns = math.ceil(math.sqrt(num_scenes))
    images, captions = [], []
    for index in range(num_scenes):
        path = folder / f"{scene_name(index)}.tif"
        with Raster(path) as raster:
            labels = read_scene_labels(
                path.with_suffix(".gpkg"), raster.georeference, (raster.height, raster.width)
            )
            classes = np.array([SYNTHETIC_CLASSES.index(name) for name in labels.names])
            # All numbers of the scene, because a preview has to show its brightest roofs, too.
            rule = Radiometry(scaling="percentile", percentiles=(0, 100)).measure(raster)
            side = _SHEET_SIDE // columns
            images.append(draw_quicklook(raster, rule, labels.polygons, classes, max_size=side))

        captions.append(f"{path.name}: {len(labels)} objects")

    sheet = make_contact_sheet(images, captions, columns=columns, cell_size=_SHEET_SIDE // columns)
    path = folder / "preview.png"
    write_image(path, sheet)
    return path


def draw_video_preview(folder: Path, split: str, num_videos: int) -> Path:
    """Draw three frames of each of the first videos with their labels on one sheet.

    Args:
        folder: folder in RsCarData's format.
        split: ``"train"`` or ``"test"``.
        num_videos: videos on the sheet, > 0.

    Returns:
        path of the sheet, ``preview_<split>.png`` in the folder.
    """
    images, captions = [], []
    for record in islice(read_video_records(folder, split), num_videos):
        frames = folder / RSCARDATA_SPLITS[split].images / record["name"] / "img1"
        labelled = [
            {
                "file_name": str(frames / f"{number:06d}.jpg"),
                "annotations": [
                    {"bbox": box, "category_id": 0, "track_id": track} for track, *box in rows
                ],
            }
            for number, rows in enumerate(record["frames"], start=1)
        ]
        for index in np.linspace(0, len(labelled) - 1, 3).astype(int):
            images.append(draw_record(labelled[index], labelled[:index][::-1]))
            captions.append(f"{record['name']}, frame {index + 1}, {record['mode']}")

    sheet = make_contact_sheet(images, captions, columns=3, cell_size=_SHEET_SIDE // 3)
    path = folder / f"preview_{split}.png"
    write_image(path, sheet)
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        0 if done, 2 if an argument or the folder cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    path = write_scenes(args, shard_from_environment())
    # The record is complete when all shards are, whichever of them comes last.
    record = json.loads(path.read_text(encoding="utf-8"))
    if not record["complete"]:
        print("This shard is done; the last process to finish counts the objects.")
        return

    folder, shown = path.parent, min(args.preview, args.num_images)
    if args.kind == "video":
        print(format_statistics(measure_videos(read_video_records(folder, record["split"]))))
    else:
        print(describe(record))

    if shown > 0:
        if args.kind == "video":
            sheet = draw_video_preview(folder, record["split"], shown)
        elif args.kind == "georeferenced":
            sheet = draw_georeferenced_preview(folder, shown)
        else:
            sheet = draw_preview(folder, shown)

        print(f"Preview: {sheet}")
