"""COCO's JSON format for boxes, with the extra fields of tiny-object datasets.

Nothing is skipped silently: a report counts every entry that cannot be used and names file and
entry.
Fields of TinyPerson beyond COCO's: ``ignore``, ``uncertain``, ``logo``, ``in_dense_image`` of an
annotation and ``corner`` of an image, the window of a larger image that the entry stands for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsd2.io.text import read_json

from .foreign import describe_format, guess_json, is_normalized
from .label_report import LabelReport
from .values import is_coordinate, parse_boolean, parse_id, parse_number, parse_whole

FLAGS = ("ignore", "uncertain", "logo", "in_dense_image")
"""Flags of an annotation in TinyPerson; an absent flag is False."""
OUT_OF_IMAGE_POLICIES = ("keep", "clip", "drop")

_FLAG_SET = frozenset(FLAGS)
_TOLERANCE = 1.0


@dataclass(frozen=True)
class CocoImage:
    """One entry of ``images``.

    Attributes:
        number: id of the entry, see `parse_id`.
        file_name: file name as the file has it, relative to the image folder.
        height: height of the image, or of the window if there is a ``corner``; pixels.
        width: width of the image, or of the window if there is a ``corner``; pixels.
        corner: (x0, y0, x1, y1) of the window in the image file, pixels, or None for all of it.
    """

    number: int | str
    file_name: str
    height: int
    width: int
    corner: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class CocoBox:
    """One entry of ``annotations``.

    Attributes:
        number: id of the entry, see `parse_id`; -1 if it has none.
        category: a key of ``CocoFile.categories``.
        box: x, y, width, height in pixels of the image or window.
        area: area of the object, square pixels, > 0; the area of the box if the file states none.
        is_crowd: the flag ``iscrowd``.
        flags: names from ``FLAGS`` that are set.
        track: ``track_id``, the object's number in its video; None if the entry has none, or if it
            is no whole number, which is reported.
    """

    number: int | str
    category: int | str
    box: tuple[float, float, float, float]
    area: float
    is_crowd: bool
    flags: frozenset[str]
    track: int | None = None


@dataclass(frozen=True)
class CocoFile:
    """The usable content of a file.

    Attributes:
        images: images by id, in the order of the file.
        boxes: boxes of each image id, in the order of the file; empty for images without objects.
        categories: id -> name.
    """

    images: dict[int | str, CocoImage] = field(default_factory=dict)
    boxes: dict[int | str, list[CocoBox]] = field(default_factory=dict)
    categories: dict[int | str, str] = field(default_factory=dict)


def read_coco_file(
    path: str | Path, report: LabelReport, *, out_of_image: str = "keep"
) -> CocoFile:
    """Read a COCO file of boxes.

    Args:
        path: path of the JSON file.
        report: report that gets every wrong entry.
        out_of_image: ``"keep"``, ``"clip"`` or ``"drop"`` boxes that cross the border of their
            image by more than a pixel. Only ``"keep"`` keeps boxes that lie wholly outside,
            because a detector misses them all the same. Every such box is reported.

    Returns:
        The usable entries, including images without annotations.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON (the message gives line and column), lacks one of the lists
            ``images``, ``annotations`` and ``categories``, holds boxes divided by width and height,
            has no usable annotation at all, or if ``out_of_image`` is unknown.
    """
    if out_of_image not in OUT_OF_IMAGE_POLICIES:
        raise ValueError(
            f"out_of_image must be one of {', '.join(OUT_OF_IMAGE_POLICIES)}, got {out_of_image!r}"
        )

    path = Path(path)
    content = load_lists(path)
    categories = parse_categories(content["categories"], path)
    images = parse_images(content["images"], path, report)
    boxes: dict[int | str, list[CocoBox]] = {number: [] for number in images}
    num_read, are_normalized = 0, True
    for index, entry in enumerate(content["annotations"]):
        read = _read_box(entry, index, images, categories, path, report)
        if read is None:
            continue
        number, box = read
        num_read += 1

        # Judged before clipping, which moves coordinates to the border.
        are_normalized = are_normalized and is_normalized(box.box)
        kept = _apply_border_policy(box, images[number], out_of_image, path, report)
        if kept is not None:
            boxes[number].append(kept)

    # One wrong entry goes to the report; a file without a usable one is useless as a whole.
    _check_plausible(content["annotations"], num_read, are_normalized, path, report)
    for number, group in boxes.items():
        _report_repeated(group, images[number].file_name, path, report)
    report.label_files += 1
    report.images += len(images)
    report.objects += sum(map(len, boxes.values()))
    return CocoFile(images, boxes, categories)


def load_lists(path: Path) -> dict[str, Any]:
    """Read a COCO file.

    Args:
        path: of the JSON file.

    Returns:
        its content, with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, or a list is missing; says what it looks like.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no annotation file {path}; put it there or correct the path."
        ) from None

    keys = ("images", "annotations", "categories")
    wrong = [
        key
        for key in keys
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if wrong:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        foreign = guess_json(content)
        looks = f" {path.name}: {describe_format(foreign)}." if foreign else ""
        raise ValueError(
            f"{path} has no list {', '.join(wrong)} (found: {_short(found)}); a COCO file has the "
            f"lists images, annotations and categories.{looks}"
        )

    return content


def _check_plausible(
    entries: Sequence[Any], num_read: int, are_normalized: bool, path: Path, report: LabelReport
) -> None:
    """Raise if no annotation of the file can be used, or if its boxes are not in pixels."""
    if entries and not num_read:
        # Five numbers are the usual spelling of a rotated box in COCO's format.
        lengths = {len(e["bbox"]) for e in entries if isinstance(_get(e, "bbox"), list)}
        name = "COCO JSON of rotated boxes" if lengths == {5} else ""
        looks = f" {path.name}: {describe_format(name)}." if name else ""
        raise ValueError(
            f"None of the {len(entries)} annotations of {path} can be used.{looks} "
            f"{report.summary()}"
        )

    if num_read and are_normalized:
        name = "COCO JSON with boxes divided by width and height"
        raise ValueError(
            f"All numbers of the {num_read} boxes of {path} lie in 0 to 1, so they are not "
            f"pixels: {describe_format(name)}."
        )


def _report_repeated(
    boxes: Sequence[CocoBox], file_name: str, path: Path, report: LabelReport
) -> None:
    """Report boxes that repeat another box of the same class in their image."""
    seen: set[tuple] = set()
    for box in boxes:
        identity = (box.category, box.box)
        if identity in seen:
            message = f"annotation id {box.number} of {file_name} repeats another"
            report.add("duplicate_object", path, None, message, "kept")
        seen.add(identity)


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def parse_categories(entries: Sequence[Any], path: Path) -> dict[int | str, str]:
    """Parse the list of categories.

    Args:
        entries: ``categories`` of a file.
        path: of the file, for messages.

    Returns:
        id -> name.

    Raises:
        ValueError: for a broken entry or a repeated id.
    """
    categories: dict[int | str, str] = {}
    for index, entry in enumerate(entries):
        try:
            number, name = parse_id(entry["id"]), _text(entry["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: categories[{index}] is {_short(entry)}; it needs 'id' (a number or a "
                f"text) and 'name' ({error})."
            ) from error

        if number in categories:
            # A category stands for many annotations, so this is an error of the whole file.
            raise ValueError(f"{path}: category id {number} occurs twice; make the ids unique.")
        categories[number] = name

    return categories


def parse_images(
    entries: Sequence[Any], path: Path, report: LabelReport
) -> dict[int | str, CocoImage]:
    """Parse the list of images.

    Args:
        entries: ``images`` of a file.
        path: of the file.
        report: gets what cannot be used.

    Returns:
        id -> image.
    """
    images: dict[int | str, CocoImage] = {}
    for index, entry in enumerate(entries):
        try:
            number, name = parse_id(entry["id"]), _text(entry["file_name"])
            # TinyPerson's entries for windows state the corner, and no size that could be trusted.
            corner = None if entry.get("corner") is None else _corner(entry["corner"])
            if corner is None:
                height, width = parse_whole(entry["height"]), parse_whole(entry["width"])
            else:
                height, width = corner[3] - corner[1], corner[2] - corner[0]

            if height < 1 or width < 1:
                raise ValueError(f"{width} x {height} pixels")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"images[{index}] is {_short(entry)} ({error!r})"
            report.add("coco_image", path, None, message)
            continue

        if number in images:
            report.add("duplicate_id", path, None, f"images[{index}] has the id {number} again")
            continue
        images[number] = CocoImage(number, name, height, width, corner)

    return images


def _corner(value: Any) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (parse_number(number) for number in value)
    if not is_coordinate(x0, y0, x1, y1):
        raise ValueError(f"corner {_short(value)}")
    return round(x0), round(y0), round(x1), round(y1)


def _read_box(
    entry: Any,
    index: int,
    images: dict[int | str, CocoImage],
    categories: dict[int | str, str],
    path: Path,
    report: LabelReport,
) -> tuple[int | str, CocoBox] | None:
    """Return (image id, box) of an entry, or None after adding to the report."""
    try:
        number = parse_id(entry.get("id", -1))
        image, category = parse_id(entry["image_id"]), parse_id(entry["category_id"])
        if len(entry["bbox"]) != 4:
            raise ValueError(f"bbox has {len(entry['bbox'])} numbers instead of 4")
        x, y, width, height = map(parse_number, entry["bbox"])
        area = parse_number(entry.get("area") or 0.0)
        crowd = parse_boolean(entry.get("iscrowd"))
        # Most annotations have no flag at all, so the present ones are found first.
        flags: frozenset[str] = frozenset()
        if not _FLAG_SET.isdisjoint(entry):
            present = _FLAG_SET.intersection(entry)
            flags = frozenset(flag for flag in present if parse_boolean(entry[flag]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        report.add(
            "coco_annotation", path, None, f"annotations[{index}]: {error!r}: {_short(entry)}"
        )
        return None

    # Files have millions of entries, so messages are put together only for what is wrong.
    if image not in images:
        where = _entry_name(index, number)
        report.add("unknown_image", path, None, f"{where} belongs to image id {image!r}")
        return None
    name = images[image].file_name
    if category not in categories:
        message = f"{_entry_name(index, number)} of {name} has the category id {category!r}"
        report.add("unknown_category", path, None, message)
        return None

    if not is_coordinate(x, y, width, height) or not math.isfinite(area):
        where = _entry_name(index, number)
        report.add("non_finite", path, None, f"{where} of {name}: bbox {_short(entry['bbox'])}")
        return None
    if width <= 0 or height <= 0:
        where = _entry_name(index, number)
        report.add("box_without_area", path, None, f"{where} of {name}: bbox {entry['bbox']}")
        return None
    # Generated files state an area of 0 or none; evaluation by size needs one.
    area = area if area > 0 else width * height
    track = entry.get("track_id")
    # A detector can learn from a box without a track, so only the track is given up.
    try:
        track = None if track is None else parse_whole(track)
    except ValueError:
        message = f"{_entry_name(index, number)} of {name} has the track_id {_short(track)}"
        report.add("track_number", path, None, message, "kept")
        track = None

    return image, CocoBox(number, category, (x, y, width, height), area, crowd, flags, track)


def _entry_name(index: int, number: int | str) -> str:
    """Name an annotation for a message by its place in the file and its id."""
    return f"annotations[{index}] (id {number})"


def _apply_border_policy(
    box: CocoBox, image: CocoImage, policy: str, path: Path, report: LabelReport
) -> CocoBox | None:
    x, y, width, height = box.box
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + width, image.width), min(y + height, image.height)
    outside = x1 <= x0 or y1 <= y0
    beyond = max(-x, -y, x + width - image.width, y + height - image.height)
    if not outside and beyond <= _TOLERANCE:
        return box

    fate = {"keep": "kept", "clip": "dropped" if outside else "clipped", "drop": "dropped"}[policy]
    message = (
        f"annotation id {box.number} of {image.file_name}: box {list(box.box)} in an image of "
        f"{image.width} x {image.height}"
    )
    report.add("outside_image" if outside else "crossing_border", path, None, message, fate)
    if fate == "dropped":
        return None
    if fate == "kept":
        return box
    share = (x1 - x0) * (y1 - y0) / (width * height)
    clipped = (x0, y0, x1 - x0, y1 - y0)
    return replace(box, box=clipped, area=box.area * share)


def _text(value: Any) -> str:
    """Return a name; numbers are names, too."""
    if not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{_short(value)} is not a name")
    return str(value)


def _short(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 120 else text[:117] + "..."
