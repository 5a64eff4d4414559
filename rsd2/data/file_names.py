"""Looks up files that lists and label files name, comparing paths instead of text."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from rsd2.io.image_io import IMAGE_EXTENSIONS

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


class NameIndex:
    """Index of the names of a folder's files, relative to the folder, or of a dataset's images.

    Finds ``./a.png``, ``x/../a.png``, ``x//a.png``, ``x\\a.png``, names in another case and
    absolute names, as long as only one name matches.
    """

    def __init__(
        self, names: Iterable[str], folder: str | Path | None = None, *, with_extension: bool = True
    ) -> None:
        """Index the names.

        Args:
            names: names of files with ``/``, relative to the folder.
            folder: folder to which the names are relative, needed to resolve absolute names. None
                matches any trailing part of an absolute name.
            with_extension: compare the extensions of images, too; False for ids, which lists write
                with or without extension.
        """
        self._names = set(names)
        self._folder = None if folder is None else _normalize(str(Path(folder).absolute()))
        self._with_extension = with_extension
        self._by_key: dict[str, set[str]] | None = None

    def find(self, name: str) -> str | None:
        """Find the name that this spelling stands for.

        Args:
            name: name as a list or a label file writes it.

        Returns:
            the name as given to the index; None if there is none, or if several names match.
        """
        if name in self._names:
            return name
        for candidate in self._relative(_normalize(name)):
            if candidate in self._names:
                return candidate
            # Another case may match two files, and choosing one of them would be a guess.
            found = self._keys().get(self._key(candidate), set())
            if len(found) == 1:
                return next(iter(found))

        return None

    def _relative(self, name: str) -> list[str]:
        """Return the readings of a normalized name relative to the folder, best first."""
        if not _ABSOLUTE.match(name):
            return [name]
        parts = name.split("/")
        tails = ["/".join(parts[k:]) for k in range(1, len(parts))]
        if self._folder is None:
            return tails

        inside = self._folder + "/"
        ways = [name.removeprefix(inside)] if name.startswith(inside) else []

        # A path of another machine: take what follows the last folder that has our folder's name.
        own = posixpath.basename(self._folder).lower()
        return ways + [tail for part, tail in zip(parts, tails) if part.lower() == own][::-1]

    def _keys(self) -> dict[str, set[str]]:
        """Return the names by their comparison key; built when first needed."""
        if self._by_key is None:
            self._by_key = {}
            for name in self._names:
                self._by_key.setdefault(self._key(name), set()).add(name)
        return self._by_key

    def _key(self, name: str) -> str:
        stem, extension = posixpath.splitext(name.casefold())
        is_dispensable = extension in IMAGE_EXTENSIONS and not self._with_extension
        return stem if is_dispensable else name.casefold()


class FolderFiles:
    """The files of a folder and of all folders in it, linked ones included."""

    def __init__(self, folder: str | Path) -> None:
        """List the files.

        Args:
            folder: folder that exists.
        """
        self._folder = Path(folder)
        self._index = NameIndex(list_files(self._folder), self._folder)

    def find(self, name: str) -> str | None:
        """Find a file by the name that a label file gives it.

        Args:
            name: relative to the folder, or absolute; in any of the spellings of `NameIndex`.

        Returns:
            the name relative to the folder, with ``/``, of a file that is there; the absolute or
            ascending path of a file elsewhere; None if there is no such file.
        """
        found = self._index.find(name)
        if found is not None:
            return found
        # The index does not look beside the folder, so there the path itself has to lead to a file.
        path = _normalize(name)
        is_elsewhere = _ABSOLUTE.match(path) or path.startswith("../")
        return path if is_elsewhere and (self._folder / path).is_file() else None


def list_files(folder: Path, above: frozenset[str] = frozenset()) -> list[str]:
    """List the files of a folder and of all folders in it, linked ones included.

    Args:
        folder: folder that exists.
        above: resolved folders above this one; the function itself passes them.

    Returns:
        names relative to the folder, with ``/``, in no order.
    """
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that holds it would never end
        return []
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                inner = list_files(Path(entry.path), above | {real})
                names += [f"{entry.name}/{name}" for name in inner]
            else:
                names.append(entry.name)

    return names


def is_side_file(name: str) -> bool:
    """Tell whether programs leave a file of this name beside the files that people mean.

    Args:
        name: name of a file, without folders.

    Returns:
        True for hidden files, and for the ``.aux.xml`` in which GDAL keeps statistics of a raster.
    """
    return name.startswith(".") or name.lower().endswith(".aux.xml")


def list_data_files(folder: Path) -> list[str]:
    """List the files of `list_files` without those of `is_side_file`."""
    return [name for name in list_files(folder) if not is_side_file(posixpath.basename(name))]


def _normalize(name: str) -> str:
    return posixpath.normpath(name.strip().replace("\\", "/"))
