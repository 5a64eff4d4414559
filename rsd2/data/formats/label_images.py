"""Matches images and label files by their names, and reads the sizes of the images."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from rsd2.data.file_names import NameIndex, list_data_files
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image_size

from .foreign import describe_folder
from .label_entries import LabelPage, clean_file_name
from .label_report import LabelReport, show_progress


class ImageFolder:
    """The images of a folder and of all folders in it.

    Attributes:
        folder: folder as given.
        names: sorted names relative to the folder, with ``/``; without hidden files.
    """

    def __init__(self, folder: str | Path) -> None:
        """List the images.

        Args:
            folder: folder that holds at least one image.

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
            for name in list_data_files(self.folder)
            if posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS
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
            name: any spelling that `NameIndex` knows, with or without extension and folders.

        Returns:
            one of ``names``; None if there is none, or more than one could be meant.
        """
        found = self._index.find(name)
        # Tools rename folders on upload, so the last part alone may match, if only one image has
        # it.
        if found is None:
            candidates = self._by_stem.get(stem_of(name.replace("\\", "/")), [])
            found = candidates[0] if len(candidates) == 1 else None
        return found

    def drop_second_ones(self, report: LabelReport) -> None:
        """Keep one of several images that differ only in extension and so share a label file.

        Args:
            report: report that gets the others.
        """
        # The order of IMAGE_EXTENSIONS decides, so the choice does not depend on the file system.
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
            report: report that gets the images that cannot be read.

        Returns:
            name -> (height, width) in pixels, for the readable images.
        """
        sizes = read_sizes([self.folder / name for name in self.names], report)
        return {name: size for name, size in zip(self.names, sizes) if size is not None}


def read_sizes(paths: Iterable[Path], report: LabelReport) -> list[tuple[int, int] | None]:
    """Read the sizes of images from their headers.

    Args:
        paths: paths of the images.
        report: report that gets the images that cannot be read.

    Returns:
        (height, width) of each image in pixels; None for an image whose header is broken.
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
        found = chain.from_iterable(pool.map(lambda group: [*map(read, group)], groups))
        results = list(show_progress(found, "image", len(paths)))

    for path, result in zip(paths, results):
        if isinstance(result, str):
            report.add("unreadable_image", path, None, result)
    return [None if isinstance(result, str) else result for result in results]


def stem_of(name: str) -> str:
    """Return the part that names in different folders share: the file name without extension."""
    stem, extension = posixpath.splitext(posixpath.basename(name.strip()))
    # Only known endings are cut: in "scene.2019" the part behind the point belongs to the name.
    is_image = extension.lower() in (*IMAGE_EXTENSIONS, ".txt", ".xml", ".json")
    return (stem if is_image else stem + extension).casefold()


def group_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by `stem_of`.

    Args:
        names: names with ``/``.

    Returns:
        stem -> names with that stem.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(stem_of(name), []).append(name)
    return groups


def image_name(label_name: str, page: LabelPage) -> str:
    """Name the image of a label file when the folder of the images is unknown.

    Args:
        label_name: name of the label file with ``/``.
        page: content of the file.

    Returns:
        the name of the label file with the extension of the image that the page names, or ``.png``.
    """
    stem = posixpath.splitext(label_name)[0]
    # The label file's own name decides; the stated name adds its extension if the two agree.
    stated = posixpath.basename(clean_file_name(page.file_name or ""))
    extension = posixpath.splitext(stated)[1]
    return stem + (extension if stem_of(stated) == stem_of(stem) and extension else ".png")


def match_labels(
    images: Sequence[str], files: Sequence[str], folder: Path, report: LabelReport
) -> dict[str, str]:
    """Match each image with the label file of the same path or, failing that, of the same stem.

    Args:
        images: names of the images with ``/``.
        files: names of the label files with ``/``, at least one.
        folder: folder of the label files.
        report: report that gets label files without an image.

    Returns:
        name of the image -> name of its label file, for images that have one.

    Raises:
        FileNotFoundError: if no label file has the name of an image.
    """
    by_path = {posixpath.splitext(name)[0].casefold(): name for name in files}
    by_stem = group_by_stem(files)
    images_by_stem = group_by_stem(images)
    matched = {}
    for name in images:
        file = by_path.get(posixpath.splitext(name)[0].casefold())
        candidates = by_stem.get(stem_of(name), [])
        # Exactly one image and one label file: with equal names in several folders, an image could
        # get the labels of another one.
        if file is None and len(candidates) == len(images_by_stem[stem_of(name)]) == 1:
            file = candidates[0]
        if file is not None:
            matched[name] = file

    for file in sorted(set(files) - set(matched.values())):
        report.add("label_without_image", folder / file, None, "no image of this name")
    if not matched:
        raise FileNotFoundError(
            f"None of the {len(files)} label files of {folder} has the name of an image, as "
            f"{files[0]} would be of {posixpath.splitext(files[0])[0]}.png; check both folders. "
            f"{describe_folder(folder)}"
        )
    return matched
