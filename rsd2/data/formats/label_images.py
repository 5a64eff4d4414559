"""The images that labels belong to: found by the names that label files give them, with sizes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rsd2.data.file_names import NameIndex, list_files
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image_size

from .label_report import LabelReport


class ImageFolder:
    """The images of a folder and of all folders in it.

    Attributes:
        folder: as given.
        names: relative to the folder, with ``/``, sorted; hidden files are not looked at.
    """

    def __init__(self, folder: str | Path) -> None:
        """List the images.

        Args:
            folder: has to hold an image.

        Raises:
            FileNotFoundError: if the folder is not there or holds no image.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"There is no image folder {self.folder.absolute()}; check the path."
            )
        self.names = sorted(
            name
            for name in list_files(self.folder)
            if posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS
            and not posixpath.basename(name).startswith(".")
        )
        if not self.names:
            raise FileNotFoundError(
                f"The image folder {folder} holds no file ending in {', '.join(IMAGE_EXTENSIONS)}."
            )
        self._index = NameIndex(self.names, self.folder, with_extension=False)
        self._by_stem = group_by_stem(self.names)

    def find(self, name: str) -> str | None:
        """Find the image that a label file names.

        Args:
            name: in any of the spellings of `NameIndex`, with or without extension and folders.

        Returns:
            one of ``names``; None if there is none, or more than one could be meant.
        """
        found = self._index.find(name)
        if found is None:
            candidates = self._by_stem.get(stem_of(name.replace("\\", "/")), [])
            found = candidates[0] if len(candidates) == 1 else None
        return found

    def drop_second_ones(self, report: LabelReport) -> None:
        """Keep one of images that differ in their extension alone, and so share a label file.

        Args:
            report: gets the others.
        """
        rank = {extension: index for index, extension in enumerate(IMAGE_EXTENSIONS)}
        chosen: dict[str, str] = {}
        for name in sorted(self.names, key=lambda n: rank[posixpath.splitext(n)[1].lower()]):
            first = chosen.setdefault(posixpath.splitext(name)[0], name)
            if first != name:
                message = f"{first} of the same name is used instead"
                report.add("duplicate_image", self.folder / name, None, message)
        self.names = sorted(chosen.values())

    def read_sizes(self, report: LabelReport) -> dict[str, tuple[int, int]]:
        """Read the sizes of all images from their headers.

        Args:
            report: gets the images that cannot be read.

        Returns:
            name -> (height, width) in pixels, of the readable ones.
        """
        sizes = read_sizes([self.folder / name for name in self.names], report)
        return {name: size for name, size in zip(self.names, sizes) if size is not None}


def read_sizes(paths: Iterable[Path], report: LabelReport) -> list[tuple[int, int] | None]:
    """Read the sizes of images from their headers.

    Args:
        paths: of the images.
        report: gets the images that cannot be read.

    Returns:
        (height, width) of each image in pixels, None and a problem where the header is broken.
    """

    def read(path: Path) -> tuple[int, int] | str:
        try:
            return read_image_size(path)
        except (ValueError, OSError) as error:
            return str(error)

    paths = list(paths)
    groups = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    # Threads hide the latency of network file systems, where datasets of 10 000 images live.
    with ThreadPoolExecutor(8) as pool:
        results = [size for group in pool.map(lambda g: [*map(read, g)], groups) for size in group]

    for path, result in zip(paths, results):
        if isinstance(result, str):
            report.add("unreadable_image", path, None, result)
    return [None if isinstance(result, str) else result for result in results]


def stem_of(name: str) -> str:
    """Return what is compared of names whose folders differ: the last part, without extension."""
    stem, extension = posixpath.splitext(posixpath.basename(name.strip()))
    is_image = extension.lower() in (*IMAGE_EXTENSIONS, ".txt", ".xml", ".json")
    return (stem if is_image else stem + extension).casefold()


def group_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by `stem_of`.

    Args:
        names: with ``/``.

    Returns:
        stem -> names.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(stem_of(name), []).append(name)
    return groups
