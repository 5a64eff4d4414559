"""Samples one label file of a folder to tell the format of all."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsd2.data.file_names import list_data_files
from rsd2.io.text import TextError, read_json

from .foreign import guess_file, guess_json

_MOST_FILES = 50
"""Number of files of one ending that are tried: files without objects do not show their format."""


@dataclass(frozen=True)
class Sample:
    """A sampled label file.

    Attributes:
        file: path of the file; None if there is none.
        kind: format of the file, a key of ``rsd2.data.formats.foreign.READERS``, or empty.
        content: parsed content of a JSON file, else None.
    """

    file: Path | None = None
    kind: str = ""
    content: Any = None


def look_at(path: str | Path) -> Sample:
    """Sample a label file, or the files of a folder until one shows its format.

    Args:
        path: a file or a folder.

    Returns:
        the sample; an empty one for what cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return _look_at_file(path)
    if not path.is_dir():
        return Sample()

    names = list_data_files(path)
    # Only YOLO keeps its class list in this file, and its label files may all be empty.
    if any(posixpath.basename(name) in ("data.yaml", "data.yml") for name in names):
        first = next((name for name in sorted(names) if name.endswith(".txt")), None)
        kind = "YOLO-OBB text (class number, then corners divided by width and height)"
        return Sample(None if first is None else path / first, kind)

    # The most frequent ending first: a folder of labels may hold a readme or a settings file, too.
    endings = Counter(posixpath.splitext(name)[1].lower() for name in names)
    known = {".txt", ".xml", ".json", ".geojson", ".gpkg"}
    for ending in sorted(known & endings.keys(), key=lambda e: -endings[e]):
        chosen = sorted(name for name in names if name.lower().endswith(ending))
        for name in chosen[:_MOST_FILES]:
            sample = _look_at_file(path / name)
            if sample.kind:
                return sample
    return Sample()


def _look_at_file(path: Path) -> Sample:
    # The class list itself was given, as `YoloObb.class_names` allows.
    if path.suffix.lower() in (".yaml", ".yml"):
        kind = "YOLO-OBB text (class number, then corners divided by width and height)"
        return Sample(path, kind)
    if path.suffix.lower() != ".json":
        return Sample(path, guess_file(path))

    try:
        content = read_json(path)
    except (OSError, TextError):
        return Sample(path)
    return Sample(path, guess_json(content), content)
