"""Reads any data set, registered or not, into the form that the doctor examines."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.dataset_dicts import check_record, polygon_of
from rsd2.data.datasets import load_dataset, load_dota_instances, load_dota_tiles
from rsd2.data.file_names import is_side_file
from rsd2.data.formats.label_entries import LabelPage, ObjectRow
from rsd2.data.formats.label_format import LabelFormat, LabelledImage, make_image
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import detect_format, find_format
from rsd2.io.text import TextError, read_lines

from .pictures import DataSet, Picture

PAIR = "::"
"""Stands between labels and images in the name of a data set that is not registered."""

_IMAGE_FOLDERS = ("images", "JPEGImages", "AllImages", "img")
_NUMBERED = ("yolo-obb",)


def read_data_set(
    source: str, *, format: str = "auto", classes: Sequence[str] = (), progress: bool = True
) -> DataSet:
    """Read a data set.

    Args:
        source: name of a registered data set; or a folder that holds ``images`` and labels; or
            labels and images with ``::`` between them, such as ``annotations.json::images``.
        format: format of the labels of a data set that is not registered, see `find_format`.
        classes: its class list; labels that bring a list of their own need none.

    Returns:
        the data set, also one without a single usable object.

    Raises:
        FileNotFoundError: if labels or images are missing.
        ValueError: if there is no such data set, or the format of its labels is not recognized.
    """
    if source in DatasetCatalog.list():
        return _read_registered(source)
    if PAIR in source:
        labels, images = source.split(PAIR, 1)
    elif Path(source).is_dir():
        labels, images = _find_parts(Path(source), format)
    else:
        near = difflib.get_close_matches(source, DatasetCatalog.list(), n=3)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise ValueError(
            f"no data set is registered as {source!r}, and it is no folder; give a name, a folder "
            f"that holds images and labels, or LABELS{PAIR}IMAGES{hint}"
        )

    one = find_format(format, labels)
    listed = tuple(classes) or one.class_names(labels)
    return _read_files(source, one, labels, images, listed)


def _read_files(
    name: str,
    one: LabelFormat,
    labels: str | Path,
    images: str | Path,
    classes: Sequence[str],
    **choices: bool,
) -> DataSet:
    """Read label files, whose objects know their lines."""
    report = LabelReport()
    # Only numbered classes need the list: readers correct the spelling of names by it, but the
    # names as they are written are what is to be examined.
    needs_list = one.name in _NUMBERED or any(c[:1].isdigit() for c in classes)
    try:
        found = one.read(labels, images, classes=classes if needs_list else (), report=report)
    except ValueError:
        if not report.total:
            raise
        found = []  # no object is usable, and the report says why

    pictures = [
        Picture(str(Path(images) / i.file_name), i, metres=_stated_metres(one, i)) for i in found
    ]
    return DataSet(name, pictures, tuple(classes), report, **choices)


def _stated_metres(one: LabelFormat, image: LabelledImage) -> float | None:
    """Return the side of a pixel that the header of a DOTA file states."""
    if one.name != "dota" or not image.label_file:
        return None
    try:
        header = read_lines(image.label_file)[:2]
        stated = [line[4:] for line in header if line.lower().startswith("gsd:")]
        metres = float(stated[0]) if stated else 0.0
    except (OSError, TextError, ValueError):  # "gsd:null" is frequent
        return None
    return metres if 0 < metres < float("inf") else None


def _find_parts(folder: Path, format: str) -> tuple[str, str]:
    """Find labels and images in the folder of a data set."""
    images = next((folder / n for n in _IMAGE_FOLDERS if (folder / n).is_dir()), folder)
    # A class list names the whole set; single files come last, because they may be lists of images.
    others = [path for path in folder.iterdir() if path != images and not is_side_file(path.name)]
    others.sort(key=lambda p: (p.suffix.lower() not in (".yaml", ".yml"), not p.is_dir(), p.name))

    for path in others if images != folder else ():
        try:
            if format == "auto":
                detect_format(path)
        except ValueError:
            continue
        return str(path), str(images)

    # Labels beside the images, or an error that says what the folder holds.
    find_format(format, folder)
    return str(folder), str(images)


def _read_registered(name: str) -> DataSet:
    load: Any = DatasetCatalog[name]
    classes = tuple(MetadataCatalog.get(name).get("thing_classes") or ())
    function, options = getattr(load, "func", load), dict(getattr(load, "keywords", {}))
    arguments: tuple[Any, ...] = getattr(load, "args", ())
    choices = {
        "is_subset": options.get("unknown_class") == "ignore",
        "cuts_objects": options.get("out_of_image") == "ignore" or function is load_dota_tiles,
    }

    # Read from the label files themselves, because dataset dicts do not know lines.
    if function in (load_dota_instances, load_dota_tiles, load_dataset):
        if function is load_dota_tiles:
            labels, images = Path(arguments[0]) / "labelTxt", Path(arguments[0]) / "images"
        else:
            labels, images = arguments[:2]
        form = options.get("format", "auto") if function is load_dataset else "dota"
        if labels is not None and Path(labels).exists():
            one = find_format(form, labels) if isinstance(form, str) else form
            return _read_files(name, one, labels, images, classes, **choices)

    return _from_records(name, load, classes, choices)


def _from_records(
    name: str,
    load: Callable[..., list[dict]],
    classes: tuple[str, ...],
    choices: Mapping[str, bool],
) -> DataSet:
    """Examine the dataset dicts, which any registered data set has."""
    report, checks = LabelReport(), LabelReport()
    takes_report = "report" in inspect.signature(load).parameters
    records = load(report=report) if takes_report else load()

    pictures, is_tiled = [], False
    for number, record in enumerate(records):
        check_record(record, "file_name", "height", "width")
        shown = str(record.get("image_id", number))
        rows = [
            ObjectRow(
                polygon_of(one, shown).reshape(-1).tolist(),
                _class_name(one, classes),
                int(one.get("difficult", 0)),
                heading=one.get("head"),
            )
            for one in record.get("annotations", ())
            if not one.get("ignore") and not one.get("iscrowd")
        ]
        page = LabelPage(rows, size=(record["height"], record["width"]))
        image = make_image(shown, None, page, Path(record["file_name"]), (), checks)
        assert image is not None, "the page states the size"

        tile = record.get("tile")
        is_tiled |= tile is not None
        pictures.append(Picture(record["file_name"], image, tile, record.get("raster")))

    # The reader of the data set knows lines; what it has reported is not reported again.
    known = {kind for kind, _ in report.counts}
    report.extend([one for one in checks.problems if one.kind not in known])
    cuts = choices["cuts_objects"] or is_tiled
    return DataSet(name, pictures, classes, report, cuts, choices["is_subset"])


def _class_name(annotation: Mapping[str, Any], classes: Sequence[str]) -> str:
    number = annotation["category_id"]
    return classes[number] if 0 <= number < len(classes) else f"category {number}"
