"""Examines data sets before a model is trained with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsd2.data.datasets.polygon_labels import category_ids

from . import leakage
from .doctor_images import check_images, find_leaks
from .doctor_labels import check_fit, check_labels, describe_classes, polygons_of, sides_of
from .findings import NOTES, Finding, Findings, remedy_of
from .leakage import Fingerprint
from .pictures import DataSet, Picture

_QUANTILES = {"least": 0, "1%": 1, "median": 50, "99%": 99, "most": 100}


@dataclass(frozen=True)
class ModelLimits:
    """What a model can take.

    Attributes:
        window: side of the windows of its images, pixels.
        overlap: overlap of the windows, pixels.
        num_queries: most objects that it can find in a window; None if it has no limit.
        classes: its classes in their order; empty if they are unknown.
        source: file that says so.
    """

    window: int = 1024
    overlap: int = 200
    num_queries: int | None = None
    classes: tuple[str, ...] = ()
    source: str = ""


@dataclass(eq=False)
class Examination:
    """Everything that the doctor knows about data sets.

    Attributes:
        sets: the data sets; training sets first.
        findings: what was found.
        limits: of the model.
        compared: whether training and test sets were compared.
        facts: name of a set -> result of `describe`.
    """

    sets: list[DataSet]
    findings: Findings = field(default_factory=Findings)
    limits: ModelLimits = ModelLimits()
    compared: bool = False
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self, ignored: Collection[str] = ()) -> dict[str, Any]:
        """Return the examination as values that JSON can hold.

        Args:
            ignored: kinds of findings that do not count.

        Returns:
            ``findings`` (number of those that count), ``sets`` (name -> facts), ``counts`` (kind ->
            number, and whether it counts), ``leakage`` (the rule of near-copies, or null), and
            ``problems`` (the first ones of each kind, with file and line).
        """
        quiet = NOTES | set(ignored)
        rule = {
            "hashes": leakage.NUM_HASHES,
            "most_bits_apart": leakage.MAX_BITS,
            "least_agreeing": leakage.MIN_AGREEING,
            "least_share": leakage.MIN_SHARE,
        }
        problems = [
            {
                "kind": one.kind,
                "set": one.data_set,
                "file": one.file,
                "line": one.line,
                "message": one.message,
                "other": one.other and one.other.path,
            }
            for group in self.findings.first.values()
            for one in group
        ]
        return {
            "findings": self.findings.count(ignored),
            "sets": self.facts,
            "counts": {
                kind: {"number": number, "counts": kind not in quiet, "remedy": remedy_of(kind)}
                for kind, number in sorted(self.findings.counts.items())
            },
            "leakage": rule if self.compared else None,
            "problems": problems,
        }


def examine(
    train: Sequence[DataSet],
    test: Sequence[DataSet] = (),
    *,
    limits: ModelLimits = ModelLimits(),
    num_workers: int = 0,
    progress: bool = True,
) -> Examination:
    """Examine data sets: labels, image files, leaks between training and test.

    Args:
        train: training sets, or all sets if none is compared with another.
        test: test sets, which are searched for what the training sets show.
        limits: what the model can take.
        num_workers: processes that decode images; 0 works in this one.
        progress: show bars.

    Returns:
        the examination.
    """
    result = Examination([*train, *test], limits=limits, compared=bool(train and test))
    findings = result.findings
    prints: dict[Picture, Fingerprint] = {}
    digests: dict[Picture, bytes] = {}
    for data in result.sets:
        check_labels(data, findings, progress=progress)
        check_fit(
            data,
            findings,
            window=limits.window,
            overlap=limits.overlap,
            num_queries=limits.num_queries,
        )
        if limits.classes and data.classes:
            check_class_order(data, limits, findings)

        seen = check_images(
            data,
            findings,
            num_workers=num_workers,
            with_prints=result.compared,
            progress=progress,
        )
        prints |= seen[0]
        digests |= seen[1]
        result.facts[data.name] = describe(data)

    if result.compared:
        find_leaks(train, test, prints, digests, findings, progress=progress)
    return result


def check_class_order(data: DataSet, limits: ModelLimits, findings: Findings) -> None:
    """Compare the classes of a model with those of a data set.

    Args:
        data: data set with a class list.
        limits: classes of the model.
        findings: gets the first difference.

    Raises:
        ValueError: if one of the lists is invalid.
    """
    ours, theirs = category_ids(data.classes), category_ids(limits.classes)
    if list(ours) == list(theirs):
        return
    if set(ours) == set(theirs):
        first = next(name for name in ours if ours[name] != theirs[name])
        message = f"the same classes in another order: {first!r} is {theirs[first]} in the model"
        message += f" and {ours[first]} in the data"
    else:
        only_data = ", ".join(repr(name) for name in ours if name not in theirs) or "nothing"
        only_model = ", ".join(repr(name) for name in theirs if name not in ours) or "nothing"
        message = f"only in the data: {only_data}; only in the model: {only_model}"
    findings.add(Finding("class_order", data.name, limits.source, None, message))


def describe(data: DataSet) -> dict[str, Any]:
    """Count what a data set holds.

    Args:
        data: the data set.

    Returns:
        values that JSON can hold: ``images``, ``empty_images``, ``objects``, ``difficult``,
        ``classes`` (see `describe_classes`), and quantiles of ``long_side`` and ``short_side`` in
        pixels, of ``long_side_m`` in metres (null where no image states the side of its pixels)
        and of ``objects_per_image``.
    """
    counts, long_m = [], [np.zeros(0)]
    sides = [np.zeros((0, 2))]
    for picture in data.pictures:
        counts.append(len(picture.image.objects))
        if counts[-1]:
            sides.append(sides_of(polygons_of(picture)))
            if picture.metres is not None:
                long_m.append(sides[-1][:, 0] * picture.metres)

    long, short = np.concatenate(sides).T
    flags = [one.difficult for p in data.pictures for one in p.image.objects]
    return {
        "images": len(counts),
        "empty_images": counts.count(0),
        "objects": sum(counts),
        "difficult": sum(flag > 0 for flag in flags),
        "classes": describe_classes(data),
        "long_side": _quantiles(long),
        "short_side": _quantiles(short),
        "long_side_m": _quantiles(np.concatenate(long_m)),
        "objects_per_image": _quantiles(np.array(counts)),
    }


def advise_windows(facts: Mapping[str, Any], limits: ModelLimits) -> str:
    """Say in a sentence which windows suit the objects of a data set.

    Args:
        facts: result of `describe`.
        limits: windows in use.

    Returns:
        the advice; empty for a set without objects.
    """
    if facts["long_side"] is None:
        return ""
    long, typical = facts["long_side"]["99%"], facts["long_side"]["median"]
    # An object no longer than the overlap is whole in at least one window.
    overlap = int(np.ceil(long / 50) * 50)
    if long <= limits.overlap:
        text = f"The overlap of {limits.overlap} pixels shows 99 % of the objects whole"
    else:
        window = max(limits.window, int(np.ceil(3 * overlap / 64) * 64))
        text = (
            f"99 % of the objects are shorter than {long:.0f} pixels: an overlap of {overlap} with "
            f"windows of {window} shows them whole, {limits.overlap} does not"
        )
    if typical < 16:
        text += f". Half of them are shorter than {typical:.0f} pixels: enlarge the images twice"
    return text + "."


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.percentile(values, list(_QUANTILES.values()))
    return {name: round(float(value), 3) for name, value in zip(_QUANTILES, found)}
