"""Problems of labels and images: file, line, message, remedy, and the fate of the object or image.

Every reader of rsd2 reports its problems here, so that nothing is skipped without a count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from rsd2.io.text import TextError

_Item = TypeVar("_Item")

REMEDIES = {
    "fields": "a line is 'x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]', separated by blanks",
    "fields_with_head": "a line is 'x1 y1 x2 y2 x3 y3 x4 y4 head_x head_y class [difficult]', "
    "separated by blanks",
    "foreign_format": "read the file with what reads its format, or convert it",
    "class_number": "write classes as words, or give a class list that has the number as a name",
    "duplicate_object": "delete all but one of the equal objects",
    "duplicate_label": "keep one label file for each image",
    "xml": "save the annotation as well-formed XML, or download it again",
    "missing_element": "give the object a name and, under robndbox, its eight corner elements "
    "x_left_top ... y_left_bottom, as 'Oriented Bounding Boxes' has them",
    "number": "write the coordinates as plain decimal numbers",
    "non_finite": "replace NaN or infinite coordinates, and those of 1e9 pixels or more, or delete "
    "the line",
    "difficult_flag": "write the difficult flag as 0, 1 or 2",
    "zero_area": "delete the line or draw the object again: its four points lie on one line",
    "self_crossing": "list the four vertices in their order around the object",
    "unknown_class": "correct the spelling, add the name to the class list, or pass "
    "unknown_class='ignore'",
    "label_without_image": "put the image into the image folder or remove the label file",
    "image_without_label": "write an empty label file if the image shows no object, or pass "
    "missing_label='drop'",
    "listed_without_image": "download the image, or take its name off the list of the split",
    "duplicate_image": "keep one image file for each name",
    "unreadable_image": "download or convert the image again, or remove it from the folder",
    "unreadable_label": "save the label file as plain text and make it readable",
    "outside_image": "check that label and image belong together and share one scale; "
    "out_of_image='clip' or 'drop' removes such objects",
    "crossing_border": "out_of_image='clip' cuts such objects at the border, 'drop' removes them",
    "box_without_area": "delete the annotation or draw the box again: a side of it is not > 0",
    "coco_image": "an entry of images needs id, file_name, height and width (or corner), > 0",
    "coco_annotation": "annotations need image_id, category_id and a bbox of 4 numbers",
    "track_number": "number the tracks with whole numbers; until then the box belongs to none",
    "duplicate_id": "give every image an id and a file (or corner) of its own",
    "missing_image": "put the image into the image folder, or pass missing_image='drop'",
    "unknown_category": "add the category to the file's categories or correct the id",
    "missing_frame": "put the frame into its folder; until then the next later one stands for it",
    "frame_number": "name frames by their number, like 000001.jpg, as the dataset does",
    "frame_folder": "put each video's frames into <video>/img1 and list them with this path",
    "mot_row": "a row is 'frame,id,x,y,width,height,...' with commas or 'frame id x1 y1 x2 y2 ...' "
    "with blanks, numbers, frame from 1; correct or delete it",
    "voc_object": "give the object a bndbox with xmin, ymin, xmax and ymax",
    "mat_file": "get the MAT file again, or remove it together with its frames",
    "mat_version": "load the file in MATLAB and save it again with save(..., '-v7'), which SciPy "
    "reads; it does not read MATLAB 7.3",
    "label_entry": "give the entry what its format asks for, best in the tool that wrote it",
    "label_shape": "draw the object as a rotated rectangle or a polygon",
    "image_size": "check that label and image belong together: the sizes that they state differ",
    "absent_image": "put the image into the image folder, or take it out of the label file",
    "several_annotations": "keep one finished annotation for each image; the first one is used",
    "unknown_image": "add the image to the file's images or remove its annotations",
}
"""Kind of problem -> what its owner can do about it."""


@dataclass(frozen=True)
class LabelProblem:
    """One complaint.

    Attributes:
        kind: a key of ``REMEDIES``.
        file: the label or image file.
        line: 1-based line number, or None if the whole file is meant.
        message: what was found, with the value.
        fate: what became of the object or image: ``"kept"``, ``"clipped"`` or ``"dropped"``.
    """

    kind: str
    file: str
    line: int | None
    message: str
    fate: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message} [{self.kind}, {self.fate}]"


@dataclass
class LabelReport:
    """Counts of everything read, and the problems found.

    Attributes:
        images: images found.
        label_files: label files read.
        objects: objects returned to the caller.
        counts: (kind, fate) -> number of problems; complete whatever ``max_stored`` is.
        problems: the first ``max_stored`` problems of each kind.
        max_stored: limit that bounds the memory when a whole dataset is wrong in the same way.
    """

    images: int = 0
    label_files: int = 0
    objects: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[LabelProblem] = field(default_factory=list)
    max_stored: int = 1000
    _stored: Counter[str] = field(default_factory=Counter, repr=False)

    def add(
        self, kind: str, file: str | Path, line: int | None, message: str, fate: str = "dropped"
    ) -> None:
        """Note one problem.

        Args:
            kind: a key of ``REMEDIES``.
            file: the file to blame.
            line: 1-based, or None.
            message: what is wrong, with the offending value.
            fate: ``"kept"``, ``"clipped"`` or ``"dropped"``.

        Raises:
            KeyError: if ``kind`` has no remedy.
        """
        if kind not in REMEDIES:
            raise KeyError(f"unknown kind of problem {kind!r}; known: {sorted(REMEDIES)}")
        self.counts[kind, fate] += 1
        # Only the list is bounded; the counts above stay complete.
        if self._stored[kind] < self.max_stored:
            self._stored[kind] += 1
            self.problems.append(LabelProblem(kind, str(file), line, message, fate))

    def add_unreadable(self, path: str | Path, error: OSError | TextError) -> None:
        """Note a label file that cannot be read.

        Args:
            path: path of the file.
            error: what reading it raised.
        """
        reason, line = f"cannot read the file: {error}", None
        # A `TextError` knows the line of the broken byte, an `OSError` only the file.
        if isinstance(error, TextError):
            reason, line = error.reason, error.line
        self.add("unreadable_label", path, line, reason)

    def extend(self, problems: list[LabelProblem]) -> None:
        """Note problems found elsewhere, in a worker process for example.

        Args:
            problems: problems in the order in which to list them.
        """
        for problem in problems:
            self.add(problem.kind, problem.file, problem.line, problem.message, problem.fate)

    @property
    def total(self) -> int:
        """Number of problems of all kinds."""
        return sum(self.counts.values())

    def count(self, kind: str, fate: str | None = None) -> int:
        """Number of problems of a kind.

        Args:
            kind: a key of ``REMEDIES``.
            fate: only those with this fate, or None for all.

        Returns:
            a number >= 0.
        """
        return sum(n for (k, f), n in self.counts.items() if k == kind and fate in (None, f))

    def summary(self, max_examples: int = 3) -> str:
        """Describe the problems in a few lines.

        Args:
            max_examples: problems shown for each kind.

        Returns:
            several lines: totals, then for each kind its count, remedy and first examples.
        """
        lines = [
            f"{self.images} images, {self.label_files} label files, {self.objects} objects; "
            f"{self.total} problems"
        ]
        for kind in sorted({kind for kind, _ in self.counts}):
            fates = ", ".join(f"{n} {f}" for (k, f), n in sorted(self.counts.items()) if k == kind)
            lines.append(f"  {kind} ({fates}): {REMEDIES[kind]}")
            examples = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"    {problem}" for problem in examples[:max_examples]]
            if self.count(kind) > max_examples:
                lines.append(f"    ... and {self.count(kind) - max_examples} more")

        return "\n".join(lines)

    def log(self, logger: logging.Logger, name: str) -> None:
        """Log the summary: as a warning if there are problems, else as information.

        Args:
            logger: logger that gets the lines.
            name: name of the dataset, or its label folder.
        """
        level = logging.WARNING if self.total else logging.INFO
        logger.log(level, "Labels of %s: %s", name, self.summary())

    def raise_if_any(self, name: str, kinds: tuple[str, ...] | None = None) -> None:
        """Turn problems into an error.

        Args:
            name: name of the dataset, or its label folder.
            kinds: only problems of these kinds count; None for all.

        Raises:
            ValueError: with the summary, if there is a problem.
        """
        if any(kinds is None or kind in kinds for kind, _ in self.counts):
            raise ValueError(f"Problems in the labels of {name}: {self.summary(max_examples=10)}")

    def as_dict(self) -> dict:
        """Return the report as values that JSON can hold.

        Returns:
            ``images``, ``label_files``, ``objects``, ``counts`` (kind -> fate -> number) and
            ``problems`` (list of dicts).
        """
        counts: dict[str, dict[str, int]] = {}
        for (kind, fate), number in sorted(self.counts.items()):
            counts.setdefault(kind, {})[fate] = number
        return {
            "images": self.images,
            "label_files": self.label_files,
            "objects": self.objects,
            "counts": counts,
            "problems": [asdict(problem) for problem in self.problems],
        }


def show_progress(items: Iterable[_Item], unit: str, total: int | None = None) -> Iterable[_Item]:
    """Show a bar for work on labels that takes longer than two seconds.

    Args:
        items: what is worked on.
        unit: word for one item.
        total: number of items; None for items that know their number.

    Returns:
        the items.
    """
    return tqdm(items, desc="labels", unit=unit, total=total, delay=2, leave=False)
