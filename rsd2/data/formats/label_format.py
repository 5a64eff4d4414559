"""What all label formats of annotation tools have in common: how they are read and written.

A format is one file of this folder: a class with a name, what it can hold, how one file of it is
parsed and how one is put together. Finding files and images, checking objects, counting what is
wrong or cannot be carried over is the same for all and is done here.
"""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from rsd2.data.class_orders import canonical_class_name
from rsd2.data.file_names import list_files
from rsd2.io.files import make_output_folder, write_atomically

from .dota import DotaLabels, check_polygons
from .foreign import describe_folder
from .label_entries import (
    LabelPage,
    Names,
    Size,
    clean_file_name,
)
from .label_images import ImageFolder, group_by_stem, stem_of
from .label_report import LabelReport
from .label_sample import Sample, look_at
from .rectangles import fit_rectangle

LOSSES = {
    "difficult": "difficult flags",
    "cut": "difficult flags 2 of objects that tiling cut, written as 1",
    "score": "scores",
    "heading": "heading points",
    "quadrilateral": "quadrilaterals that are no rectangles, written as their smallest rectangle",
}
"""What a format may be unable to hold -> how a report calls it."""


# Not of objects: a file of images without label, for example, is no file of another format.
_OF_IMAGES = {
    *("label_without_image", "image_without_label", "absent_image", "image_size"),
    *("duplicate_image", "duplicate_label", "unreadable_image", "several_annotations"),
}


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """An object in an image.

    Attributes:
        polygon: (4, 2) float64 xy in pixels, in the order of the file; boxes with an angle run
            clockwise on screen from the corner that is upper left before they are turned.
        name: of its class.
        difficult: 0, 1, or 2 for an object that tiling cut.
        score: of a prediction, or None.
        heading: point x, y in pixels to which the object points, or None.
        line: 1-based line of the label file, None where objects have no line.
    """

    polygon: np.ndarray
    name: str
    difficult: int = 0
    score: float | None = None
    heading: tuple[float, float] | None = None
    line: int | None = None


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and its objects.

    Attributes:
        file_name: relative to the folder of images, with ``/``.
        height: pixels.
        width: pixels.
        objects: none if the image shows none.
        label_file: that the objects were read from; an empty text where no label file has the
            image.
    """

    file_name: str
    height: int
    width: int
    objects: list[LabelledObject]
    label_file: str = ""


class LabelFormat(ABC):
    """A format of labels.

    Attributes:
        name: on the command line.
        title: for messages.
        kinds: keys of ``rsd2.data.formats.foreign.READERS`` that it reads.
        holds: keys of ``LOSSES`` that it can hold.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    holds: ClassVar[frozenset[str]]

    def detect(self, path: str | Path) -> bool:
        """Tell from the content whether files are of this format.

        Args:
            path: a label file or a folder of them.

        Returns:
            False also for what cannot be read.
        """
        return self.recognizes(look_at(path))

    def recognizes(self, sample: Sample) -> bool:
        """Tell whether a file that was looked at is of this format.

        Args:
            sample: of `look_at`.

        Returns:
            whether it is.
        """
        return sample.kind in self.kinds

    def class_names(self, path: str | Path) -> tuple[str, ...]:
        """Return the list of classes that the labels bring with them.

        Args:
            path: as for `read`.

        Returns:
            names in their order; empty where the format has no list.
        """
        return ()

    def read(
        self,
        path: str | Path,
        images: str | Path | None = None,
        *,
        classes: Sequence[str] = (),
        report: LabelReport | None = None,
    ) -> list[LabelledImage]:
        """Read labels.

        What cannot be used is left out and reported with file and line or entry. An image without
        label file is taken as empty, and reported.

        Args:
            path: a label file or a folder of them, as the format has it.
            images: folder of the images, whose sizes count; None if the labels state file names
                and sizes, and all images that they name are wanted.
            classes: names of numbered classes, for labels without a list of their own; names are
                spelt like these, whatever their case.
            report: is filled if given.

        Returns:
            the images, sorted by name.

        Raises:
            FileNotFoundError: if there is no such file or folder.
            ValueError: if the format needs the images, a file is of another format or broken, or
                not one object of labels that are not empty can be used; names file and place.
        """
        report = LabelReport() if report is None else report
        if not Path(path).exists():
            raise FileNotFoundError(f"There are no labels {path}; correct the path.")

        folder = None if images is None else ImageFolder(images)
        found = self._read_all(Path(path), folder, tuple(classes), report)
        report.images += len(found)
        report.objects += sum(len(image.objects) for image in found)

        lost = {kind for kind, fate in report.counts if fate == "dropped"} - _OF_IMAGES
        if lost and not any(image.objects for image in found):
            raise ValueError(f"No object of {path} can be used as {self.title}. {report.summary()}")
        return sorted(found, key=lambda image: image.file_name)

    def write(
        self, path: str | Path, images: Iterable[LabelledImage], *, classes: Sequence[str] = ()
    ) -> Counter[str]:
        """Write labels.

        Args:
            path: what `read` takes; it must not be there, or be an empty folder.
            images: in pixels.
            classes: all class names in their order, where the format numbers them; sorted by name
                if empty.

        Returns:
            what the format cannot hold, keys of ``LOSSES``, and for how many objects.

        Raises:
            ValueError: if something is there, a class is not in the list, or two images would get
                one label file.
        """
        images = list(images)
        found = {one.name for image in images for one in image.objects}
        classes = tuple(classes) or tuple(sorted(found))
        if found - set(classes):
            raise ValueError(
                f"The class list {list(classes)} lacks {sorted(found - set(classes))}; add them, "
                "or leave these objects out."
            )

        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} is there already; remove it or choose another output.")

        self._write_all(path, images, classes)
        return self.losses(images)

    def losses(self, images: Iterable[LabelledImage]) -> Counter[str]:
        """Count what the format cannot hold.

        Args:
            images: that are to be written.

        Returns:
            keys of ``LOSSES`` -> number of objects; without those of which there is none.
        """
        counts: Counter[str] = Counter()
        for one in (one for image in images for one in image.objects):
            counts["difficult"] += one.difficult != 0
            counts["cut"] += one.difficult == 2 and "difficult" in self.holds
            counts["score"] += one.score is not None
            counts["heading"] += one.heading is not None
            if "quadrilateral" not in self.holds:
                counts["quadrilateral"] += not fit_rectangle(one.polygon)[1]
        return Counter({key: n for key, n in counts.items() if n and key not in self.holds})

    @abstractmethod
    def _read_all(
        self, path: Path, folder: ImageFolder | None, classes: tuple[str, ...], report: LabelReport
    ) -> list[LabelledImage]:
        """Read all images."""

    @abstractmethod
    def _write_all(
        self, path: Path, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> None:
        """Write all images; nothing is there yet."""


class FileForAll(LabelFormat):
    """A format that has all images in one file."""

    @abstractmethod
    def parse(self, path: Path, classes: tuple[str, ...], report: LabelReport) -> list[LabelPage]:
        """Parse a file.

        Args:
            path: of the file.
            classes: see `read`.
            report: gets what cannot be used.

        Returns:
            a page for each image, with file name.

        Raises:
            ValueError: if it is of another format or broken.
        """

    def find_file(self, path: str | Path) -> Path:
        """Find the label file.

        Args:
            path: the file, or a folder that holds it.

        Returns:
            the file; the folder itself if it holds no labels.
        """
        path = Path(path)
        return look_at(path).file or path if path.is_dir() else path

    @abstractmethod
    def format_file(self, images: Sequence[LabelledImage], classes: tuple[str, ...]) -> str:
        """Put the text of a file together.

        Args:
            images: of the file.
            classes: all class names.

        Returns:
            the text.
        """

    def _read_all(
        self, path: Path, folder: ImageFolder | None, classes: tuple[str, ...], report: LabelReport
    ) -> list[LabelledImage]:
        path = self.find_file(path)
        if path.is_dir():
            raise ValueError(f"There is no file of {self.title} in {path}. {describe_folder(path)}")
        pages = self.parse(path, classes, report)
        report.label_files += 1
        sizes = {} if folder is None else folder.read_sizes(report)

        found: dict[str, LabelledImage] = {}
        for page in pages:
            name = clean_file_name(page.file_name or "")
            if folder is not None:
                known = folder.find(page.file_name or "")
                if known is None:
                    message = f"no image {page.file_name!r} in {folder.folder}"
                    report.add("absent_image", path, None, f"{message}: {len(page.rows)} objects")
                    continue
                name = known
            if folder is not None and name not in sizes:
                continue  # unreadable, and reported
            if name in found:
                report.add("duplicate_label", path, None, f"{name} is there once more")
                continue
            image = make_image(name, sizes.get(name), page, path, classes, report)
            if image is not None:
                found[name] = image

        for name in sorted(sizes.keys() - found.keys()):
            where = Path(name) if folder is None else folder.folder / name
            report.add("image_without_label", where, None, f"not in {path}", "kept")
            height, width = sizes[name]
            found[name] = LabelledImage(name, height, width, [])
        return list(found.values())

    def _write_all(
        self, path: Path, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> None:
        text = self.format_file(images, classes)
        make_output_folder(path.parent)
        write_atomically(path, text)


class FilePerImage(LabelFormat):
    """A format that has a label file for each image, of the same name.

    Attributes:
        suffix: of the label files, lower case, with dot.
        sub_folder: of the label files, beside whatever else the format needs.
        states_size: label files state the size of their image.
        no_labels: names of files that have the suffix but are no labels.
    """

    suffix: ClassVar[str]
    sub_folder: ClassVar[str] = ""
    states_size: ClassVar[bool] = False
    no_labels: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file.

        Args:
            path: of the file.
            size: (height, width) of the image in pixels; None if no folder of images is given.
            classes: of `class_names` if these are any, else see `read`.
            report: gets what cannot be used, the whole file if it is broken.

        Returns:
            the page; an empty one for a broken file.
        """

    @abstractmethod
    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Put the text of a file together.

        Args:
            image: of the file.
            classes: all class names.

        Returns:
            the text.
        """

    def extra_files(
        self, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> dict[str, str]:
        """Return the files that belong to a folder of labels: name -> text."""
        return {}

    def find_files(self, path: Path) -> tuple[Path, list[str]]:
        """Find the label files.

        Args:
            path: a label file or a folder of them.

        Returns:
            the folder, and the files relative to it, with ``/``, sorted.

        Raises:
            FileNotFoundError: if there is none; says what is there instead.
        """
        if path.suffix.lower() == self.suffix and path.is_file():
            return path.parent, [path.name]
        folder = path if path.is_dir() else path.parent
        if (folder / self.sub_folder).is_dir():
            folder = folder / self.sub_folder
        names = [name for name in list_files(folder) if self._is_label(name)]
        if not names:
            raise FileNotFoundError(
                f"No label file of {self.title} (*{self.suffix}) is in {folder}. "
                f"{describe_folder(folder)}"
            )
        return folder, sorted(names)

    def _is_label(self, name: str) -> bool:
        base = posixpath.basename(name)
        is_one = base.lower().endswith(self.suffix) and not base.startswith(".")
        return is_one and base not in self.no_labels

    def _read_all(
        self, path: Path, folder: ImageFolder | None, classes: tuple[str, ...], report: LabelReport
    ) -> list[LabelledImage]:
        labels, files = self.find_files(path)
        classes = self.class_names(path) or classes
        if folder is None and not self.states_size:
            raise ValueError(
                f"{self.title} does not state the sizes of the images; name the folder of images."
            )
        report.label_files += len(files)

        if folder is None:
            pages = [(name, self.parse(labels / name, None, classes, report)) for name in files]
            read = [
                make_image(_image_name(name, page), None, page, labels / name, classes, report)
                for name, page in pages
            ]
            return [image for image in read if image is not None]

        folder.drop_second_ones(report)
        sizes = folder.read_sizes(report)
        label_of = _match(folder.names, files, labels, report)
        found: list[LabelledImage] = []
        for name, size in tqdm(sizes.items(), desc="labels", unit="file", delay=2, leave=False):
            file = label_of.get(name)
            if file is None:
                if not path.is_file():
                    message = f"no label file of this name in {labels}"
                    report.add("image_without_label", folder.folder / name, None, message, "kept")
                    found.append(LabelledImage(name, size[0], size[1], []))
                continue
            page = self.parse(labels / file, size, classes, report)
            image = make_image(name, size, page, labels / file, classes, report)
            if image is not None:
                found.append(image)
        return found

    def _write_all(
        self, path: Path, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> None:
        texts = dict(self.extra_files(images, classes))
        for image in images:
            stem = posixpath.splitext(clean_file_name(image.file_name))[0]
            name = posixpath.join(self.sub_folder, stem + self.suffix)
            if name in texts:
                raise ValueError(
                    f"Two images would get the label file {name}; {image.file_name} is one of "
                    "them. Rename it."
                )
            texts[name] = self.format_file(image, classes)

        # Only when all texts are there: an object that cannot be written leaves no half a folder.
        for name, text in texts.items():
            make_output_folder((path / name).parent)
            write_atomically(path / name, text)


def make_image(
    name: str,
    size: tuple[int, int] | None,
    page: LabelPage,
    path: Path,
    classes: Sequence[str],
    report: LabelReport,
) -> LabelledImage | None:
    """Check the objects of a page and put its image together.

    Args:
        name: of the image.
        size: (height, width) of the image in pixels; None takes that of the page.
        page: as parsed.
        path: of the label file.
        classes: names that those of the file are spelt like.
        report: gets what is wrong.

    Returns:
        the image; None and a problem if nothing states its size.
    """
    known_size = size or page.size
    if known_size is None:
        report.add("label_entry", path, None, f"{name}: no width and height are stated")
        return None
    if page.size is not None and page.size != known_size:
        message = f"{name}: {page.size[1]} x {page.size[0]} pixels, the image has"
        report.add("image_size", path, None, f"{message} {known_size[1]} x {known_size[0]}", "kept")

    rows = page.rows
    # NaN stands for what an object does not have, so that arrays hold all objects.
    labels = DotaLabels(
        np.array([row.corners for row in rows], dtype=np.float64).reshape(-1, 4, 2),
        [canonical_class_name(row.name, classes) for row in rows]
        if classes
        else [row.name for row in rows],
        np.array([row.difficult for row in rows], dtype=np.int64),
        np.array([row.line for row in rows], dtype=np.int64),
        np.array([row.heading or (np.nan, np.nan) for row in rows], float).reshape(-1, 2),
        np.array([np.nan if row.score is None else row.score for row in rows], float),
    )
    labels = check_polygons(labels, path, report)
    assert labels.scores is not None and labels.heads is not None, "both were given just above"

    # A number that differs from itself is NaN.
    objects = [
        LabelledObject(
            polygon,
            name_of,
            difficult,
            None if score != score else score,
            None if heading[0] != heading[0] else tuple(heading),
            line or None,
        )
        for polygon, name_of, difficult, score, heading, line in zip(
            labels.polygons,
            labels.names,
            labels.difficult.tolist(),
            labels.scores.tolist(),
            labels.heads.tolist(),
            labels.lines.tolist(),
        )
    ]
    return LabelledImage(name, known_size[0], known_size[1], objects, str(path))


def to_labels(image: LabelledImage) -> DotaLabels:
    """Put the objects of an image into arrays.

    Args:
        image: any.

    Returns:
        the objects; with heads or scores only if each object has one.
    """
    objects = image.objects
    heads = [one.heading for one in objects]
    return DotaLabels(
        np.array([one.polygon for one in objects], dtype=np.float64).reshape(-1, 4, 2),
        [one.name for one in objects],
        np.array([one.difficult for one in objects], dtype=np.int64),
        np.array([one.line or 0 for one in objects], dtype=np.int64),
        None if None in heads or not heads else np.array(heads, dtype=np.float64),
    )


def _image_name(label_name: str, page: LabelPage) -> str:
    """Name of the image of a label file whose folder of images is unknown."""
    stem = posixpath.splitext(label_name)[0]
    stated = posixpath.basename(clean_file_name(page.file_name or ""))
    extension = posixpath.splitext(stated)[1]
    return stem + (extension if stem_of(stated) == stem_of(stem) and extension else ".png")


def _match(
    images: Sequence[str], files: Sequence[str], folder: Path, report: LabelReport
) -> dict[str, str]:
    """Image -> label file: of the same path without extension, else of the same last part."""
    by_path = {posixpath.splitext(name)[0].casefold(): name for name in files}
    by_stem = group_by_stem(files)
    images_by_stem = group_by_stem(images)
    matched = {}
    for name in images:
        file = by_path.get(posixpath.splitext(name)[0].casefold())
        candidates = by_stem.get(stem_of(name), [])
        # One of each, so that of equal names in several folders none gets another one's labels.
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
