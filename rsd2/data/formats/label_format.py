"""What all label formats of annotation tools have in common: how they are read and written.

Each format is one file of this folder: a class with a name, the facts that it can hold, a parser
and a writer of one label file. This module does what is the same for all formats: it finds the
files, and counts what is wrong or cannot be carried over.
"""

from __future__ import annotations

import gc
import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from rsd2.data.file_names import list_data_files
from rsd2.io.files import make_output_folder, write_atomically

from .dota import DotaLabels
from .foreign import describe_folder
from .label_entries import LabelPage, Names, Size, clean_file_name
from .label_images import ImageFolder, image_name, match_labels
from .label_report import LabelReport, show_progress
from .label_sample import Sample, look_at
from .labelled_images import LabelledImage, make_image, read_page
from .labelled_images import LabelledObject as LabelledObject  # parts of the interface, which
from .labelled_images import to_labels as to_labels  # whoever writes a format needs, too
from .rectangles import fit_rectangle

LOSSES = {
    "difficult": "difficult flags",
    "cut": "difficult flags 2 of objects that tiling cut, written as 1",
    "score": "scores",
    "heading": "heading points",
    "quadrilateral": "quadrilaterals that are no rectangles, written as their smallest rectangle",
}
"""What a format may be unable to hold -> words for it in a report."""

# Problems of images and not of objects: images without labels, for example, do not suggest that the
# labels are of another format.
_OF_IMAGES = {
    *("label_without_image", "image_without_label", "absent_image", "image_size"),
    *("duplicate_image", "duplicate_label", "unreadable_image", "several_annotations"),
}


class LabelFormat(ABC):
    """A format of labels.

    Attributes:
        name: name on the command line.
        title: name in messages.
        kinds: keys of ``rsd2.data.formats.foreign.READERS`` that the format reads.
        holds: keys of ``LOSSES`` that the format can hold.
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
            True for files of this format; False also for files that cannot be read.
        """
        return self.recognizes(look_at(path))

    def recognizes(self, sample: Sample) -> bool:
        """Tell whether a sampled file is of this format.

        Args:
            sample: result of `look_at`.

        Returns:
            True for a file of this format.
        """
        return sample.kind in self.kinds

    def class_names(self, path: str | Path) -> tuple[str, ...]:
        """Return the list of classes that the labels bring with them.

        Args:
            path: path as for `read`.

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

        The reader leaves out what cannot be used and reports it with file and line or entry. It
        takes an image without label file as empty, and reports it.

        Args:
            path: a label file or a folder of them, as the format requires.
            images: folder of the images, whose sizes override those of the labels; None if the
                labels state file names and sizes, and all images that they name are wanted.
            classes: names of numbered classes, for labels without a class list of their own; the
                names of the labels get this spelling, whatever their case.
            report: report to fill, if given.

        Returns:
            the images, sorted by name.

        Raises:
            FileNotFoundError: if there is no such file or folder.
            ValueError: if the format needs the images, a file is broken or of another format, or
                labels with objects have none that can be used; the message names file and place.
        """
        report = LabelReport() if report is None else report
        if not Path(path).exists():
            raise FileNotFoundError(f"There are no labels {path}; correct the path.")

        folder = None if images is None else ImageFolder(images)
        with _without_cycle_collection():
            found = self._read_all(Path(path), folder, tuple(classes), report)
        report.images += len(found)
        report.objects += sum(len(image.objects) for image in found)

        # Problems of every object mean that the labels are of another format, not that images are
        # empty.
        lost = {kind for kind, fate in report.counts if fate == "dropped"} - _OF_IMAGES
        if lost and not any(image.objects for image in found):
            raise ValueError(f"No object of {path} can be used as {self.title}. {report.summary()}")
        return sorted(found, key=lambda image: image.file_name)

    def write(
        self,
        path: str | Path,
        images: Iterable[LabelledImage],
        *,
        classes: Sequence[str] = (),
        folder: str | Path | None = None,
    ) -> Counter[str]:
        """Write labels.

        Args:
            path: output path, of the kind that `read` takes; it must not exist, or be an empty
                folder.
            images: images with their objects in pixels.
            classes: all class names in their order, for formats that number them; if empty, the
                names in alphabetical order.
            folder: folder of the images, which formats in coordinates of the ground need.

        Returns:
            keys of ``LOSSES`` that the format cannot hold -> number of objects that lose them.

        Raises:
            ValueError: if the output exists, a class is not in the list, two images would get the
                same label file, or the format needs a folder of georeferenced images.
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
        # Labels may have been corrected by hand, so the writer never overwrites any.
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} is there already; remove it or choose another output.")

        self._write_all(path, images, classes, None if folder is None else Path(folder))
        return self.losses(images)

    def losses(self, images: Iterable[LabelledImage]) -> Counter[str]:
        """Count what the format cannot hold.

        Args:
            images: images that are to be written.

        Returns:
            keys of ``LOSSES`` -> number of objects that lose them; only keys that occur.
        """
        counts: Counter[str] = Counter()
        for one in (one for image in images for one in image.objects):
            counts["difficult"] += one.difficult != 0
            # A format with a plain flag holds "difficult" and still loses the difference between 1
            # and 2.
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
        self,
        path: Path,
        images: Sequence[LabelledImage],
        classes: tuple[str, ...],
        folder: Path | None,
    ) -> None:
        """Write all images; the caller has checked that the output does not exist."""


class FileForAll(LabelFormat):
    """A format that keeps all images in one file."""

    @abstractmethod
    def parse(self, path: Path, classes: tuple[str, ...], report: LabelReport) -> list[LabelPage]:
        """Parse a file.

        Args:
            path: path of the file.
            classes: see `read`.
            report: report that gets what cannot be used.

        Returns:
            a page for each image, with file name.

        Raises:
            ValueError: if the file is broken or of another format.
        """

    def find_file(self, path: str | Path) -> Path:
        """Find the label file.

        Args:
            path: the file, or a folder that holds it.

        Returns:
            the file; the folder itself if it holds no label file.
        """
        path = Path(path)
        return look_at(path).file or path if path.is_dir() else path

    @abstractmethod
    def format_file(self, images: Sequence[LabelledImage], classes: tuple[str, ...]) -> str:
        """Compose the text of a label file.

        Args:
            images: images of the file.
            classes: all class names.

        Returns:
            the text of the file.
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
        for page in show_progress(pages, "image"):
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
            # Two entries may spell one image differently; taking both would count objects twice.
            if name in found:
                report.add("duplicate_label", path, None, f"{name} is there once more")
                continue

            image = make_image(name, sizes.get(name), page, path, classes, report)
            if image is not None:
                found[name] = image

        # Images that the file does not mention are negatives, which training and evaluation need.
        for name in sorted(sizes.keys() - found.keys()):
            where = Path(name) if folder is None else folder.folder / name
            report.add("image_without_label", where, None, f"not in {path}", "kept")
            height, width = sizes[name]
            found[name] = LabelledImage(name, height, width, [])
        return list(found.values())

    def _write_all(
        self,
        path: Path,
        images: Sequence[LabelledImage],
        classes: tuple[str, ...],
        folder: Path | None,
    ) -> None:
        text = self.format_file(images, classes)
        make_output_folder(path.parent)
        write_atomically(path, text)


class FilePerImage(LabelFormat):
    """A format with a label file for each image, which has the name of the image.

    Attributes:
        suffix: ending of the label files, lower case, with dot.
        sub_folder: folder of the label files, beside whatever else the format needs.
        states_size: whether label files state the size of their image.
        no_labels: names of files that have the suffix but are not label files.
    """

    suffix: ClassVar[str]
    sub_folder: ClassVar[str] = ""
    states_size: ClassVar[bool] = False
    no_labels: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file.

        Args:
            path: path of the file.
            size: (height, width) of the image in pixels; None if no folder of images is given.
            classes: class names from `class_names` if there are any, else see `read`.
            report: report that gets what cannot be used, the whole file if it is broken.

        Returns:
            the page; an empty one for a broken file.
        """

    @abstractmethod
    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file.

        Args:
            image: image of the file.
            classes: all class names.

        Returns:
            the text of the file.
        """

    def read_objects(self, path: Path, classes: Names, report: LabelReport) -> DotaLabels:
        """Read the objects of one file of a format that needs no size of the image.

        Args:
            path: path of the file.
            classes: class names whose spelling the names of the file get.
            report: report that gets what cannot be used.

        Returns:
            the checked objects, see `read_page`.
        """
        report.label_files += 1
        return read_page(self.parse(path, None, classes, report), path, classes, report)

    def extra_files(
        self, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> dict[str, str]:
        """Return the further files of a folder of labels, such as a class list: name -> text."""
        return {}

    def find_files(self, path: Path) -> tuple[Path, list[str]]:
        """Find the label files.

        Args:
            path: a label file or a folder of them.

        Returns:
            the folder, and the files relative to it, with ``/``, sorted.

        Raises:
            FileNotFoundError: if there is none; the message says what is there instead.
        """
        if path.suffix.lower() == self.suffix and path.is_file():
            return path.parent, [path.name]

        # A class list names the dataset, too: its labels lie beside it or in the sub-folder.
        folder = path if path.is_dir() else path.parent
        if (folder / self.sub_folder).is_dir():
            folder = folder / self.sub_folder
        names = [
            name
            for name in list_data_files(folder)
            if name.lower().endswith(self.suffix) and posixpath.basename(name) not in self.no_labels
        ]

        if not names:
            raise FileNotFoundError(
                f"No label file of {self.title} (*{self.suffix}) is in {folder}. "
                f"{describe_folder(folder)}"
            )

        return folder, sorted(names)

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

        found: list[LabelledImage] = []
        if folder is None:
            for name in show_progress(files, "file"):
                page = self.parse(labels / name, None, classes, report)
                stem = image_name(name, page)
                image = make_image(stem, None, page, labels / name, classes, report)
                if image is not None:
                    found.append(image)
            return found

        folder.drop_second_ones(report)
        sizes = folder.read_sizes(report)
        label_of = match_labels(folder.names, files, labels, report)
        for name, size in show_progress(sizes.items(), "file"):
            file = label_of.get(name)

            # One label file names one image; the others of its folder are not meant to be empty.
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
        self,
        path: Path,
        images: Sequence[LabelledImage],
        classes: tuple[str, ...],
        folder: Path | None,
    ) -> None:
        texts = dict(self.extra_files(images, classes))

        # The composed texts show whether two images share a label file before anything is written.
        for image in images:
            stem = posixpath.splitext(clean_file_name(image.file_name))[0]
            name = posixpath.join(self.sub_folder, stem + self.suffix)
            if name in texts:
                raise ValueError(
                    f"Two images would get the label file {name}; {image.file_name} is one of "
                    "them. Rename it."
                )
            texts[name] = self.format_file(image, classes)

        # Written only when all texts exist, so an object that cannot be written leaves no folder
        # that is half filled.
        for name, text in show_progress(texts.items(), "file"):
            make_output_folder((path / name).parent)
            write_atomically(path / name, text)


@contextmanager
def _without_cycle_collection() -> Iterator[None]:
    """Pause the search for reference cycles, which takes a quarter of the time of large files.

    Labels hold no cycles, so reference counts alone free what a reader drops.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
