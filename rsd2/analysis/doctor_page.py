"""The page of the doctor: what was found, with pictures, and what the data sets hold."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure

from . import leakage
from .doctor import Examination, advise_windows
from .doctor_labels import polygons_of, sides_of
from .findings import NOTES, Finding, remedy_of
from .page import Page
from .pictures import DataSet, Picture

_LISTED = 20  # findings of a kind in its table
_SHOWN = 6  # findings of a kind in pictures
_SIDE = 320  # pixels of a picture
_RED, _GREY = (255, 40, 40), (90, 200, 255)


def make_page(result: Examination, ignored: Collection[str] = ()) -> Page:
    """Build the page of an examination.

    Args:
        result: the examination.
        ignored: kinds of findings that do not count.

    Returns:
        the page.
    """
    number = result.findings.count(ignored)
    names = ", ".join(data.name for data in result.sets)
    page = Page("Doctor: " + ("no findings" if not number else f"{number} findings"), names)
    page.facts(
        [
            ("findings", number),
            ("notes", sum(n for kind, n in result.findings.counts.items() if kind in NOTES)),
            ("images", sum(facts["images"] for facts in result.facts.values())),
            ("objects", sum(facts["objects"] for facts in result.facts.values())),
        ]
    )

    page.section("Findings", "" if result.findings.counts else "Nothing was found.")
    if result.findings.counts:
        order = sorted(result.findings.counts, key=lambda k: (k in NOTES, k in ignored, k))
        rows = [(_title(k), result.findings.counts[k], _fate(k, ignored)) for k in order]
        page.table(["kind", "number", "counts"], rows)
        for kind in order:
            _add_kind(page, result, kind)

    if result.compared:
        page.section(
            "Training and test",
            f"Near-copies are pictures of which at least {leakage.MIN_AGREEING} of "
            f"{leakage.NUM_HASHES} local hashes of 256 bits, {leakage.MAX_BITS} bits apart at "
            "most, agree on one shift, turn and scale, and span at least "
            f"{leakage.MIN_SHARE:.0%} of either picture.",
        )
    for data in result.sets:
        _add_set(page, result, data)
    return page


def _title(kind: str) -> str:
    return kind.replace("_", " ")


def _fate(kind: str, ignored: Collection[str]) -> str:
    if kind in NOTES:
        return "no, a note"
    return "no, ignored" if kind in ignored else "yes"


def _add_kind(page: Page, result: Examination, kind: str) -> None:
    """Add the findings of a kind: what to do, the first of them, and pictures."""
    found = result.findings.first.get(kind, [])
    number = result.findings.counts[kind]
    remedy = remedy_of(kind)
    page.heading(f"{_title(kind)} ({number})", f"{remedy[0].upper()}{remedy[1:]}.")
    page.gallery(_pictures(found[: 4 * _SHOWN]))

    # The part that all paths share fills the screen of a phone, and says nothing.
    files = {one.file for one in found} | {data.name for data in result.sets}
    shared = posixpath.commonpath(files) if all(map(posixpath.isabs, files)) else ""
    rows = [
        (one.where.removeprefix(f"{shared}/"), one.message.replace(f"{shared}/", ""))
        for one in found[:_LISTED]
    ]
    page.table(["where", "what"], rows, shared and f"In {shared}:")
    if number > _LISTED:
        page.paragraph(f"... and {number - _LISTED} more; the JSON file lists them.", dim=True)


def _pictures(found: Sequence[Finding]) -> Iterator[tuple[np.ndarray, str]]:
    """Yield pictures of the first findings that can be shown."""
    shown = 0
    for one in found:
        if shown == _SHOWN:
            return
        try:
            if one.picture is None:
                continue
            pixels = one.picture.read()
            drawn = _fit(pixels) if one.polygon is None else _zoom(pixels, one.picture, one.polygon)
            if one.other is not None:
                drawn = np.concatenate([drawn, _fit(one.other.read())], axis=1)
        except (OSError, ValueError):  # a file that cannot be read is a finding of its own
            continue
        shown += 1
        yield drawn, one.where.rpartition("/")[2]


def _fit(pixels: np.ndarray) -> np.ndarray:
    """Put a picture into a square, on grey."""
    scale = _SIDE / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square = np.full((_SIDE, _SIDE, 3), 110, np.uint8)
    square[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=method)
    return square


def _zoom(pixels: np.ndarray, picture: Picture, polygon: np.ndarray) -> np.ndarray:
    """Draw an object in red and its neighbours in blue, and show it with its surroundings."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    # Thrice the object, but never fewer pixels than a reader can recognize a place by.
    side = float(np.clip(3 * (high - low).max(), 48, 4000))
    start = (low + high) / 2 - side / 2
    # An object far outside is shown as the nearest part of the image.
    limit = np.array(pixels.shape[1::-1])
    start = np.clip(start, -side / 2, limit - side / 2)

    scale = _SIDE / side
    move = np.array([[scale, 0, -start[0] * scale], [0, scale, -start[1] * scale]])
    # Averaged first where it shrinks: the transform alone would skip pixels.
    if scale < 0.5:
        factor = int(1 / scale)
        small = [max(1, n // factor) for n in pixels.shape[1::-1]]
        move = move @ np.diag([pixels.shape[1] / small[0], pixels.shape[0] / small[1], 1])
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    view = np.asarray(cv2.warpAffine(pixels, move, (_SIDE, _SIDE), borderValue=(110, 110, 110)))

    for outlines, color in ((polygons_of(picture), _GREY), (polygon[None], _RED)):
        points = np.clip((outlines - start) * scale, -9999, 9999)
        for outline in np.round(points).astype(np.int32):
            cv2.polylines(view, [outline], True, color, 1 + (color is _RED), cv2.LINE_AA)
    return view


def _add_set(page: Page, result: Examination, data: DataSet) -> None:
    """Add what a data set holds."""
    facts = result.facts[data.name]
    page.section(f"Contents of {data.name}", advise_windows(facts, result.limits))
    per_image = facts["objects_per_image"] or {}
    page.facts(
        [
            ("images", facts["images"]),
            ("without objects", facts["empty_images"]),
            ("objects", facts["objects"]),
            ("difficult", facts["difficult"]),
            ("most objects in an image", round(per_image.get("most", 0))),
        ]
    )

    total = max(1, facts["objects"])
    page.table(
        ["class", "objects", "share", "images", "long side", "short side"],
        [
            (
                *(one["name"], one["objects"], f"{one['objects'] / total:.1%}", one["images"]),
                *(one["long_side"], one["short_side"]),
            )
            for one in facts["classes"]
        ],
        "Objects of each class; sides are medians in pixels.",
    )
    if facts["objects"]:
        page.plot(_plot_sizes(data), f"Sizes of the objects of {data.name}, and their number.")


def _plot_sizes(data: DataSet) -> Figure:
    """Draw histograms of the sides and of the objects of an image."""
    shown = [picture for picture in data.pictures if picture.image.objects]
    sides = [sides_of(polygons_of(picture)) for picture in shown]
    long, short = np.maximum(np.concatenate(sides), 0.1).T
    metres = [pair[:, 0] * p.metres for pair, p in zip(sides, shown) if p.metres is not None]

    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots(1, 3 if metres else 2)
    # Sizes range over orders of magnitude, so the bins grow with them.
    panels = [(axes[0], {"long side": long, "short side": short}, "side, pixels")]
    if metres:
        panels.append((axes[1], {"long side": np.concatenate(metres)}, "long side, metres"))
    for axis, series, label in panels:
        every = np.concatenate(list(series.values()))
        bins = np.geomspace(every.min() * 0.95, every.max() * 1.05, 30)
        for name, values in series.items():
            axis.hist(values, bins, histtype="step", label=name, linewidth=1.5)
        axis.set(xscale="log", xlabel=label, ylabel="objects")
    axes[0].legend(fontsize="small")

    counts = [len(picture.image.objects) for picture in data.pictures]
    axes[-1].hist(counts, bins=min(30, max(counts) + 1), color="tab:green")
    axes[-1].set(xlabel="objects in an image", ylabel="images", yscale="symlog")
    axes[-1].grid(alpha=0.3)
    return figure
