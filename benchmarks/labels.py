"""Reading label files, against the least that any reader has to do: open, split, convert.

The files are written once, into a folder that is gone when the process ends.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.harness import Case
from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.data.formats.dota import format_dota_labels, read_dota_labels
from rsd2.data.formats.label_report import LabelReport

NUM_FILES = 10_000
OBJECTS = 25
"""Mean number in a file; as in tiles of DOTA, most files have few and some hundreds."""

_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept alive as long as the process


def cases(num_files: int = NUM_FILES) -> list[Case]:
    """DOTA's label files, checked and unchecked.

    Args:
        num_files: to read.
    """
    paths = cache(lambda: _write_files(num_files))
    return [
        Case(
            f"DOTA labels, {num_files} files",
            f"{OBJECTS} objects a file on average",
            lambda: _read_checked(paths()),
            {"split and float alone": lambda: _read_plainly(paths())},
            note="the peer checks nothing and stops at the first broken line",
            dtype="float64",
        )
    ]


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
