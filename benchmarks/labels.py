"""Reading label files: DOTA's against the least that any reader has to do (open, split, convert),
and those of all other formats against rsd2's reader of DOTA's, per object.

The files are written once, into a folder that is gone when the process ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.harness import Case
from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.data.formats.dota import format_dota_labels, read_dota_labels
from rsd2.data.formats.label_format import FilePerImage, LabelledImage, LabelledObject, make_image
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import LABEL_FORMATS

NUM_FILES = 10_000
NUM_FILES_OF_EACH = 500
"""Of each format; the time grows with the number, and writing all formats takes minutes."""
OBJECTS = 25
"""Mean number in a file; as in tiles of DOTA, most files have few and some hundreds."""

_SIDE = 4096
_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept alive as long as the process


def cases(num_files: int = NUM_FILES, num_of_each: int = NUM_FILES_OF_EACH) -> list[Case]:
    """DOTA's label files, checked and unchecked, and the same objects in all formats.

    Args:
        num_files: number of DOTA's files.
        num_of_each: number of files of every format.
    """
    paths = cache(lambda: _write_files(num_files))
    same = cache(lambda: _write_files(num_of_each))
    return [
        Case(
            f"DOTA labels, {num_files} files",
            f"{OBJECTS} objects a file on average",
            lambda: _read_checked(paths()),
            {"split and float alone": lambda: _read_plainly(paths())},
            note="the peer checks nothing and stops at the first broken line",
            dtype="float64",
        ),
        *(_case(name, num_of_each, same) for name in LABEL_FORMATS),
    ]


def _case(name: str, num_files: int, same: Callable[[], list[Path]]) -> Case:
    """Reading labels of one format, against reading the same objects as DOTA's text."""
    path = cache(lambda: _convert(name, same()))
    return Case(
        f"{name} labels, {num_files} images",
        f"{OBJECTS} objects an image on average",
        lambda: _read(name, path()),
        {"rsd2's reader of DOTA text": lambda: _read_checked(same())},
        note="images are not opened; the peer returns arrays, ours an object each",
        dtype="float64",
    )


def _convert(name: str, paths: list[Path]) -> Path:
    """Write the objects of DOTA's files in another format, and return the place."""
    report, images = LabelReport(), []
    for path in paths:
        labels = read_dota_labels(path, report)
        objects = [LabelledObject(*one) for one in zip(labels.polygons, labels.names)]
        images.append(LabelledImage(f"{path.stem}.png", _SIDE, _SIDE, objects))

    _FOLDERS.append(tempfile.TemporaryDirectory())
    place = Path(_FOLDERS[-1].name) / "labels"
    if not isinstance(LABEL_FORMATS[name], FilePerImage):
        place = place.with_suffix(".xml" if name == "cvat" else ".json")
    LABEL_FORMATS[name].write(place, images, classes=SYNTHETIC_CLASSES)
    return place


def _read(name: str, path: Path) -> int:
    one, report = LABEL_FORMATS[name], LabelReport()
    if not isinstance(one, FilePerImage) or one.states_size:
        found = one.read(path, classes=SYNTHETIC_CLASSES, report=report)
    else:
        # Formats without sizes need the images, whose headers are not what is measured here.
        size, classes = (_SIDE, _SIDE), SYNTHETIC_CLASSES
        folder, names = one.find_files(path)
        pages = ((folder / n, one.parse(folder / n, size, classes, report)) for n in names)
        made = [make_image(f.name, size, page, f, classes, report) for f, page in pages]
        found = [image for image in made if image is not None]
    if report.total:
        raise ValueError(f"the files of the benchmark have problems: {report.summary()}")
    return sum(len(image.objects) for image in found)


def _write_files(num_files: int) -> list[Path]:
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder, rng = Path(_FOLDERS[-1].name), np.random.default_rng(0)
    for number in range(num_files):
        count = int(rng.geometric(1 / OBJECTS))
        centers, sides = rng.uniform(50, 4000, (count, 1, 2)), rng.uniform(4, 40, (count, 1, 2))
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        names = [SYNTHETIC_CLASSES[k] for k in rng.integers(0, len(SYNTHETIC_CLASSES), count)]
        text = format_dota_labels(centers + sides * square, names, rng.integers(0, 2, count))
        (folder / f"{number:05d}.txt").write_text(f"imagesource:None\ngsd:0.1\n{text}")
    return sorted(folder.iterdir())


def _read_checked(paths: list[Path]) -> int:
    report = LabelReport()
    total = sum(len(read_dota_labels(path, report)) for path in paths)
    if report.total:
        raise ValueError(f"the files of the benchmark have problems: {report.summary()}")
    return total


def _read_plainly(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:]]
        total += len(np.array([[float(field) for field in row[:8]] for row in rows]))
    return total
