"""Convert labels of oriented objects from the format of one annotation tool to that of another.

    python tools/convert_labels.py --from auto --to dota \\
        --input task/annotations.xml --images task/images --output task/labelTxt
    python tools/convert_labels.py --from dota --to label-studio \\
        --input data/labelTxt --images data/images --output data/tasks.json

Formats: dota, yolo-obb, rolabelimg, cvat (XML for images 1.1), cvat-coco, coco (polygons, masks),
coco-rotated (boxes of five numbers), label-studio, labelme (and X-AnyLabeling), hrsc, fair1m,
soda-a, geojson and gpkg. Those with a label file for each image write a folder; cvat, label-studio,
geojson, gpkg and those of COCO write one file. ``--images`` may be left out where the labels state
the sizes of all images; geojson and gpkg need it, because georeferenced rasters alone turn pixels
into coordinates and back.

The command prints what is wrong in the labels with file, place and remedy, and counts what the new
format cannot hold. Exit code 0: done. 2: nothing was written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rsd2.data.class_orders import canonical_class_name
from rsd2.data.formats.coco_polygons import ANGLE_CONVENTIONS, CocoRotated
from rsd2.data.formats.label_format import LOSSES, LabelFormat, LabelledImage
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.map_labels import MapLabels
from rsd2.data.formats.rectangles import fit_rectangle, rectangle_corners
from rsd2.data.formats.registry import ALL_FORMATS, find_format
from rsd2.io.folder_run import run_command


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--from", dest="source", default="auto", choices=["auto", *ALL_FORMATS], metavar="FORMAT")
    add("--to", dest="target", required=True, choices=list(ALL_FORMATS), metavar="FORMAT")
    add("--input", type=Path, required=True, metavar="PATH", help="label file, or folder of them")
    add("--images", type=Path, metavar="DIR", help="folder of the images")
    add("--output", type=Path, required=True, metavar="PATH", help="must not be there")
    add("--classes", nargs="+", metavar="NAME", help="classes in their order; others are left out")
    add(
        "--angle",
        default="degrees-ccw",
        choices=list(ANGLE_CONVENTIONS),
        help="unit and sense on screen of the fifth number of coco-rotated",
    )
    add(
        "--class-column",
        default="class",
        metavar="NAME",
        help="property of geojson and gpkg that names the class (default: class)",
    )
    add("--rectangles", action="store_true", help="replace objects by their smallest rectangles")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command; None takes those of the process.

    Returns:
        0 if done, 2 if the labels or the output cannot be used, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    return run_command(lambda: _run(args))


def keep_classes(
    images: Sequence[LabelledImage], classes: Sequence[str], report: LabelReport
) -> list[LabelledImage]:
    """Leave out the objects of other classes.

    Args:
        images: images with objects of any class.
        classes: names of the wanted classes.
        report: report that gets each object that is left out.

    Returns:
        all images, also those that are left without objects.
    """
    kept = []
    for image in images:
        for one in (one for one in image.objects if one.name not in classes):
            # A name in another case or spelling is usually a slip, so the message shows the known
            # one.
            meant = canonical_class_name(one.name, classes)
            hint = f", which has {meant!r}" if meant != one.name else ""
            message = f"class {one.name!r} of {image.file_name} is not in the class list{hint}"
            report.add("unknown_class", image.label_file, one.line, message)

        objects = [one for one in image.objects if one.name in classes]
        kept.append(replace(image, objects=objects))
    return kept


def to_rectangles(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Replace objects by their smallest rectangles; the first vertex stays the first.

    Args:
        images: images with objects of any shape.

    Returns:
        the images with rectangles in place of their objects.
    """

    def fit(polygon: np.ndarray) -> np.ndarray:
        return np.reshape(rectangle_corners(*fit_rectangle(polygon)[0]), (4, 2))

    return [
        replace(i, objects=[replace(one, polygon=fit(one.polygon)) for one in i.objects])
        for i in images
    ]


def _run(args: argparse.Namespace) -> None:
    source = _choose(args.source, args.input, args)
    target = _choose(args.target, args.output, args)
    report = LabelReport()
    images = source.read(args.input, args.images, classes=args.classes or (), report=report)

    classes = tuple(args.classes or ())
    if classes:
        images = keep_classes(images, classes, report)
    else:
        # First the class list of the labels in its order, then the names that it lacks.
        listed = source.class_names(args.input)
        found = {one.name for image in images for one in image.objects}
        classes = (*listed, *sorted(found - set(listed)))

    if args.rectangles:
        images = to_rectangles(images)

    losses = target.write(args.output, images, classes=classes, folder=args.images)
    objects = sum(len(image.objects) for image in images)

    print(f"{source.title} to {target.title}: {len(images)} images, {objects} objects")
    print(f"classes: {', '.join(classes) or 'none'}")
    if report.total:
        print(report.summary())

    # Losses come last, where a user with many problems still sees them.
    for key, number in losses.items():
        print(f"NOT CARRIED OVER: {number} {LOSSES[key]}")
    print(f"written: {args.output}")


def _choose(name: str, path: Path, args: argparse.Namespace) -> LabelFormat:
    found = find_format(name, path)
    # The registered formats have the usual conventions; these take others.
    if isinstance(found, CocoRotated):
        return CocoRotated(args.angle)
    return type(found)(args.class_column) if isinstance(found, MapLabels) else found
