"""Draw ground truth, or what the training loader makes of it, into PNG files.

A dot marks the first vertex, a tick from the centre where the angle points, stars the difficult
flag. Examples::

    python tools/visualize_data.py --labels labelTxt --images images --classes plane ship
    python tools/visualize_data.py --dataset dota_v1.0_train_1024_200
    python tools/visualize_data.py --source dataloader --config-file my_config.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from rsd2.config import ConfigError, load_config
from rsd2.data.datasets import DOTA_V2_0_CLASSES, load_dota_instances, register_builtin
from rsd2.data.drawing.boxes import (
    class_color,
    draw_dataset_dict,
    draw_rotated_boxes,
    make_contact_sheet,
)
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.io.files import make_output_folder
from rsd2.io.program import print_error


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--source", choices=["annotation", "dataloader"], default="annotation")
    add("--config-file", help="config whose dataloader.train --source dataloader draws")
    add("--dataset", metavar="NAME", help="a registered dataset")
    add("--labels", metavar="DIR", help="label folder of a set that is not registered")
    add("--images", metavar="DIR", help="its image folder")
    add("--classes", nargs="+", metavar="NAME", help="its classes; those of DOTA-v2.0 by default")
    add("--output", default="visualization", metavar="DIR", help="gets the PNG files")
    add("--num-images", type=int, default=16, help="images to draw")
    add("--shuffle", type=int, metavar="SEED", help="draw a random choice instead of the first")
    add("--no-labels", action="store_true", help="leave the class names out")
    add("--contact-sheet", type=int, metavar="COLUMNS", help="also write one sheet of all images")
    add("opts", nargs=argparse.REMAINDER, help="overrides of the config, as for training")
    return parser


def annotated_images(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the drawn ground truth of a registered dataset or of two folders.

    Args:
        args: parsed arguments of the command line.

    Returns:
        (name, (H, W, 3) uint8 RGB image) pairs.
    """
    if args.dataset:
        records = DatasetCatalog.get(args.dataset)
        classes = MetadataCatalog.get(args.dataset).thing_classes
    elif args.images:
        classes = args.classes or list(DOTA_V2_0_CLASSES)
        records = load_dota_instances(args.labels, args.images, classes)
    else:
        raise ValueError("Say what to draw: --dataset NAME, or --images DIR with --labels DIR.")

    order = np.arange(len(records))
    if args.shuffle is not None:
        order = np.random.default_rng(args.shuffle).permutation(len(records))
    # Read as in training, but without augmentation, so that formats and orientation agree.
    reader = RotatedDatasetMapper(False, augmentations=[])
    for index in order[: args.num_images]:
        record = records[index]
        image = reader(record)["image"].permute(1, 2, 0).numpy()
        drawn = draw_dataset_dict(
            image, record.get("annotations", []), classes, show_labels=not args.no_labels
        )
        yield record["image_id"], drawn


def loader_images(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield drawn samples of a config's training loader, after augmentation.

    Args:
        args: parsed arguments of the command line.

    Returns:
        (name, (H, W, 3) uint8 RGB image) pairs.
    """
    if not args.config_file:
        raise ValueError("--source dataloader needs --config-file.")
    cfg = load_config(args.config_file, args.opts)
    train = cfg.dataloader.train
    if args.dataset:
        train.dataset.names = args.dataset
    names = train.dataset.names
    metadata = MetadataCatalog.get(names if isinstance(names, str) else names[0])
    # A loader without a seed draws one from NumPy's generator.
    if args.shuffle is not None:
        np.random.seed(args.shuffle)
    # The mapper gives the model's channel order, drawings are RGB.
    flip_channels = train.mapper.get("image_format", "RGB") == "BGR"
    for number, sample in enumerate(sample for batch in instantiate(train) for sample in batch):
        image = sample["image"].permute(1, 2, 0).numpy()
        image = np.ascontiguousarray(image[:, :, ::-1] if flip_channels else image)
        instances = sample["instances"]
        classes = instances.gt_classes.tolist()
        drawn = draw_rotated_boxes(
            image,
            instances.gt_boxes.tensor,
            labels=None if args.no_labels else [metadata.thing_classes[k] for k in classes],
            colors=[class_color(k) for k in classes],
            show_angle=True,
            show_first_vertex=True,
        )

        # A training loader shows an image more than once.
        yield f"{number:04d}_{sample['image_id']}", drawn


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        0 if done, 2 if the input cannot be used.
    """
    args = get_parser().parse_args(argv)
    output = Path(args.output)
    source = annotated_images if args.source == "annotation" else loader_images
    names, images = [], []
    register_builtin()
    try:
        # A training loader never ends.
        samples = islice(source(args), args.num_images)
        for name, image in tqdm(samples, desc="images"):
            make_output_folder(output)
            path = output / f"{name}.png"
            if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"Cannot write {path}.")
            if args.contact_sheet:
                names.append(name)
                images.append(image)
    except (ValueError, OSError, KeyError, ConfigError) as error:
        print_error(error)
        return 2

    if images:
        sheet = make_contact_sheet(images, names, columns=args.contact_sheet)
        cv2.imwrite(str(output / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"Drawings are in {output}")
    return 0
