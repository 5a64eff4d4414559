"""Label Studio's JSON: boxes in percent of the image, turned clockwise about their own corner.

``x`` and ``y`` place the box's upper left corner, about which the box is turned; ``rotation`` is in
degrees. The key ``predictions`` holds the detections of a model as pre-labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    ObjectRow,
    add_entry_problem,
    clean_name,
    parse_coordinates,
    parse_score,
    parse_sides,
)
from .label_format import FileForAll, LabelledImage, LabelledObject
from .label_parsing import open_json, stated_size, to_json
from .label_report import LabelReport, show_progress
from .rectangles import fit_rectangle, polygon_corners
from .values import parse_boolean

MODEL_VERSION = "rsd2"
_UPLOAD = re.compile(r"/data/upload/(?:\d+/)?[0-9a-f]{8}-(?P<name>[^/]+)$")
_NAMES = ("rectanglelabels", "polygonlabels", "labels")
# Results that are no objects: they describe the whole image, or relations between objects.
_IGNORED = {"choices", "textarea", "rating", "relation", "taxonomy", "number", "datetime"}


class LabelStudio(FileForAll):
    """A list of tasks with ``annotations`` or ``predictions``.

    The annotations of a task override its predictions; the first finished annotation overrides the
    others.
    """

    name = "label-studio"
    title = "Label Studio JSON"
    kinds = ("Label Studio JSON",)
    holds = frozenset({"score", "quadrilateral"})

    def parse(self, path: Path, classes: tuple[str, ...], report: LabelReport) -> list[LabelPage]:
        """Parse a file, see `FileForAll.parse`."""
        content = open_json(path, self.kinds, report)
        tasks = [content] if isinstance(content, dict) else content or []
        pages = []
        for index, task in enumerate(show_progress(tasks, "image")):
            where = f"[{index}]"
            try:
                page = LabelPage(file_name=_file_name(task["data"]))
                page.size = stated_size(task["data"].get("height"), task["data"].get("width"))
                results = _results(task, path, where, report)
            except ENTRY_ERRORS as error:
                add_entry_problem(report, path, None, where, error)
                continue

            for number, result in enumerate(results):
                try:
                    row = _parse_result(result, page)
                except ENTRY_ERRORS as error:
                    place = f"{where} ({page.file_name}) result[{number}]"
                    add_entry_problem(report, path, None, place, error)
                    continue
                if row is not None:
                    page.rows.append(row)
            pages.append(page)

        return pages

    def format_file(self, images: Sequence[LabelledImage], classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FileForAll.format_file`."""
        tasks = []
        for number, image in enumerate(images, start=1):
            data = {"image": image.file_name, "width": image.width, "height": image.height}
            task: dict[str, Any] = {"id": number, "data": data, "annotations": []}
            results = [_format_result(one, k, image) for k, one in enumerate(image.objects)]

            # Objects with scores come from a model: Label Studio calls such pre-labels predictions.
            scores = [one.score for one in image.objects if one.score is not None]
            if scores:
                mean = float(np.mean(scores))
                prediction = {"model_version": MODEL_VERSION, "score": mean, "result": results}
                task["predictions"] = [prediction]
            else:
                task["annotations"] = [{"result": results, "was_cancelled": False}]
            tasks.append(task)

        return to_json(tasks)


def _file_name(data: dict[str, Any]) -> str:
    """Return the name of the image from the address by which Label Studio serves it."""
    # The key under "data" is the variable of the labelling setup; "image" is merely usual.
    places = [data.get("image"), *data.values()]
    address = next((one for one in places if isinstance(one, str) and one.strip()), None)
    if address is None:
        raise EntryError("label_entry", "data names no image")

    parts = urlsplit(address)
    query = parse_qs(parts.query)
    if "/local-files" in parts.path and query.get("d"):
        return query["d"][0]

    upload = _UPLOAD.search(parts.path)  # eight digits are put before the name of an upload
    if upload:
        return unquote(upload["name"])
    # A plain name may hold "%20" itself; only addresses are percent-encoded.
    is_address = parts.scheme in ("http", "https", "s3", "gs", "azure-blob")
    return unquote(parts.path).lstrip("/") if is_address else address


def _results(
    task: dict[str, Any], path: Path, where: str, report: LabelReport
) -> Sequence[dict[str, Any]]:
    """Return the results of the annotation that counts for a task."""
    finished = [
        one for one in task.get("annotations") or [] if not parse_boolean(one.get("was_cancelled"))
    ]
    if len(finished) > 1:
        message = f"{where} has {len(finished)} annotations"
        report.add("several_annotations", path, None, message)

    chosen = finished[:1] or (task.get("predictions") or [])[:1]
    # An annotation without results says that the image shows nothing; no annotation says nothing.
    if not chosen:
        message = f"{where} has no finished annotation and no prediction"
        report.add("image_without_label", path, None, message, "kept")
        return []
    results = chosen[0]["result"]
    if not isinstance(results, list):
        raise EntryError("label_entry", "result is not a list")
    return results


def _parse_result(result: dict[str, Any], page: LabelPage) -> ObjectRow | None:
    kind = result.get("type", "")
    if kind in _IGNORED:
        return None

    size = stated_size(result.get("original_height"), result.get("original_width")) or page.size
    if size is None:
        raise EntryError("label_entry", "original_width and original_height are missing")
    page.size = size
    # Percentages may then refer to the turned image, whose size the result does not state.
    if parse_coordinates([result.get("image_rotation") or 0])[0] % 360:
        raise EntryError("label_shape", "the image was turned while it was labelled")

    height, width = size
    value = result["value"]
    labels = next((value[key] for key in _NAMES if value.get(key)), None)
    if not isinstance(labels, list) or len(labels) != 1:
        raise EntryError("label_entry", f"the labels {labels!r:.80} are not exactly one name")

    if "points" in value:
        scaled = [
            coordinate * side / 100
            for point in value["points"]
            for coordinate, side in zip(parse_coordinates(point), (width, height), strict=True)
        ]
        corners = polygon_corners(scaled)
    elif "rle" in value or "format" in value or not {"x", "y", "width", "height"} <= value.keys():
        raise EntryError("label_shape", f"{kind or 'it'} is not a rectangle or polygon")
    else:
        corners = _rectangle(value, width, height)

    return ObjectRow(corners, clean_name(labels[0]), score=parse_score(result.get("score")))


def _rectangle(value: dict[str, Any], width: int, height: int) -> list[float]:
    x, y = parse_coordinates((value["x"], value["y"]))
    # Percent of the width for x and of the height for y: turning must happen in pixels.
    x, y = x * width / 100, y * height / 100
    sides = parse_sides(value["width"], value["height"])
    along, across = sides[0] * width / 100, sides[1] * height / 100
    (degrees,) = parse_coordinates([value.get("rotation") or 0.0])

    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    ux, uy, vx, vy = along * cos, along * sin, -across * sin, across * cos
    return [x, y, x + ux, y + uy, x + ux + vx, y + uy + vy, x + vx, y + vy]


def _format_result(one: LabelledObject, index: int, image: LabelledImage) -> dict[str, Any]:
    (_, _, along, across, angle), is_rectangle = fit_rectangle(one.polygon)
    per_cent = 100 * one.polygon / (image.width, image.height)
    result: dict[str, Any] = {
        "id": f"object{index}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels" if is_rectangle else "polygonlabels",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
    }

    if is_rectangle:
        # The first vertex, since Label Studio turns about the upper left corner and not the centre.
        result["value"] = {
            "x": float(per_cent[0, 0]),
            "y": float(per_cent[0, 1]),
            "width": 100 * along / image.width,
            "height": 100 * across / image.height,
            "rotation": math.degrees(angle) % 360,
            "rectanglelabels": [one.name],
        }
    else:
        result["value"] = {"points": per_cent.tolist(), "polygonlabels": [one.name]}

    if one.score is not None:
        result["score"] = float(one.score)
    return result
