"""What the doctor found: kinds of findings, what they mean, and what their owner can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from rsd2.data.formats.label_report import REMEDIES

from .pictures import Picture

OWN_REMEDIES = {
    "reversed_vertices": "list the vertices in the sense of the other objects: where the first "
    "side is the front, a reversed object points to the wrong side",
    "nearly_equal_object": "delete one of the two objects: one class, one place",
    "short_side": "draw the object again, or delete it: a side below 2 pixels is a slip of the "
    "mouse, or the image was shrunk too far",
    "long_thin": "draw the object again, or cut it into parts: no network finds a box of this "
    "shape, and its overlap falls to nothing at a turn of one degree",
    "odd_shape": "draw a rectangle: the quadrilateral fills less than half of the smallest "
    "rectangle around it, which is what models learn",
    "upright_boxes": "expect upright boxes from a model that is trained with these labels; label "
    "the angles, or use a detector of upright boxes",
    "angles_in_radians": "convert the labels again with the right unit: nearly all angles are "
    "below pi / 2 degrees, as radians are that were read as degrees",
    "class_typo": "correct the spelling; objects of unknown classes are not trained",
    "unused_class": "take the class off the list, or label its objects: it is trained as absent",
    "sixteen_bit_image": "convert the image to 8 bits: only the high byte of its values is used",
    "exif_orientation": "turn the file itself and take the flag off: models see the stored "
    "pixels, but viewers and label tools may show them turned",
    "alpha_channel": "take the alpha channel off: it is dropped without blending, so transparent "
    "pixels show whatever colour lies below",
    "equal_file": "take the image out of one of the two sets",
    "same_source": "put all that comes of one image into one set",
    "overlapping_tiles": "split by source images, and cut tiles afterwards",
    "near_copy": "put images of one place and day into one set: split by place, not at random",
    "many_objects": "give the model more queries, or smaller windows: it cannot find all objects",
    "object_without_window": "choose a larger window or overlap: no window shows 70% of the object",
    "class_order": "register the data with the classes of the checkpoint in its order, or convert "
    "the checkpoint; else each class is scored as another one",
}
"""Kind of finding that no reader knows -> what to do about it."""

NOTES = frozenset({"crossing_border", "upright_boxes"})
"""Kinds that are worth knowing but often right; they do not change the exit code."""


def remedy_of(kind: str) -> str:
    """Return what the owner of the data can do about a kind of finding."""
    return OWN_REMEDIES.get(kind) or REMEDIES[kind]


@dataclass(frozen=True, eq=False)
class Finding:
    """One finding.

    Attributes:
        kind: a key of ``OWN_REMEDIES`` or of the readers' ``REMEDIES``.
        data_set: name of the data set.
        file: label or image file.
        line: 1-based line, or None where there is none.
        message: what was found, with its value.
        picture: image that shows it, or None.
        polygon: (N, 2) xy in pixels to draw on it, or None.
        other: second image, of which ``picture`` is a copy, or None.
    """

    kind: str
    data_set: str
    file: str
    line: int | None
    message: str
    picture: Picture | None = None
    polygon: np.ndarray | None = None
    other: Picture | None = None

    @property
    def where(self) -> str:
        """File, with the line if there is one."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Findings:
    """All findings, counted; the first ones of each kind are kept.

    Attributes:
        counts: kind -> number; complete whatever ``max_stored`` is.
        first: the first ``max_stored`` findings of each kind.
        max_stored: bounds memory and reports if a whole set is wrong in the same way.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[Finding]] = field(default_factory=dict)
    max_stored: int = 1000

    def add(self, finding: Finding) -> None:
        """Note a finding."""
        remedy_of(finding.kind)  # a kind without remedy is a slip of ours
        self.counts[finding.kind] += 1
        stored = self.first.setdefault(finding.kind, [])
        if len(stored) < self.max_stored:
            stored.append(finding)

    def count(self, ignored: Collection[str] = ()) -> int:
        """Return the number of findings that are neither notes nor of ignored kinds."""
        return sum(n for kind, n in self.counts.items() if kind not in NOTES | set(ignored))
