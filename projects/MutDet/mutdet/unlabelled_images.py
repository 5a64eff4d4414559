"""Copy the images of registered datasets, without their labels, into one folder to pre-train on.

Example::

    python -m rsd2.projects.mutdet.unlabelled_images --output output/unlabelled/images \\
        --datasets hrsc_train airport_train sen2ships_train_384_128:200 --size 320

Names are those of ``$DETECTRON2_DATASETS``; windows of scenes become images in the colours that
their dataset shows. A number behind a name is the greatest number of images, evenly spaced, to take
from that set. Longer sides are shrunk to ``--size``. ``images.json``, written last, counts the
images. An interrupted command continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog

from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.mappers.image_mapper import ImageMapper
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.folder_run import run_command
from rsd2.io.image_io import write_image

PAGE = "images.json"


def copy_images(sets: Mapping[str, int | None], output: Path, size: int) -> dict[str, int]:
    """Write the images of datasets as PNG files, in a folder for each.

    Args:
        sets: name of a registered dataset -> greatest number of its images, >= 1; None for all.
        output: folder, made if missing; images that it has are not made again.
        size: longest side of an image, pixels, >= 1; smaller images keep their size.

    Returns:
        Name of a dataset -> number of its images.

    Raises:
        FileNotFoundError: a dataset or an image is missing.
        ValueError: a name is not registered, a number is out of range, or an image cannot be read.
    """
    unknown = sorted(set(sets) - set(DatasetCatalog.list()))
    if unknown:
        raise ValueError(f"no datasets {unknown} are registered; see rsd2/data/datasets/README.md")
    if size < 1 or any(limit is not None and limit < 1 for limit in sets.values()):
        raise ValueError(f"sizes and numbers must be at least 1, got {size} and {dict(sets)}")

    mapper, counts = ImageMapper(is_train=False, augmentations=[]), {}
    for name, limit in sets.items():
        records = DatasetCatalog.get(name)
        number = len(records) if limit is None else min(limit, len(records))
        places = np.linspace(0, len(records) - 1, number).astype(int)
        make_output_folder(output / name)
        for place in places:
            record = records[place]
            target = output / name / f"{str(record['image_id']).replace('/', '_')}.png"
            if not target.is_file():
                write_image(target, _shrink(mapper.read(record), size))
        counts[name] = len(places)

    write_atomically(output / PAGE, json.dumps(counts, indent=1) + "\n")
    return counts


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
    """Make the longer side of an image (H, W, 3) at most ``size`` pixels long."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return image
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: command line; that of the process if None.

    Returns:
        0 if done, 2 if an argument, a dataset or an image cannot be used, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="gets a folder for each set")
    add("--datasets", nargs="+", required=True, metavar="NAME[:N]", help="registered datasets")
    add("--size", type=int, default=320, help="longest side, pixels (default 320)")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    register_builtin()
    parts = [one.partition(":") for one in args.datasets]
    sets = {name: int(number) if number else None for name, _, number in parts}
    for name, count in copy_images(sets, args.output, args.size).items():
        print(f"{name}: {count} images")


if __name__ == "__main__":
    sys.exit(main())
