"""Detections in COCO's result format: a JSON list of image_id, category_id, bbox and score."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rsd2.data.formats.values import parse_id, parse_number
from rsd2.evaluation.matching.boxes import BoxDetections
from rsd2.evaluation.records import OutputRecord, WindowKey
from rsd2.io.text import TextError, read_json

_MAX_EXAMPLES = 5


class ResultFileError(ValueError):
    """Entries of a result file that fit no image or class, or are malformed."""


def read_coco_results(
    path: str | Path,
    inputs: Mapping[int | str, tuple[str, WindowKey]],
    classes: Mapping[int, int],
    *,
    on_problem: str = "error",
) -> tuple[list[OutputRecord], Counter[str]]:
    """Read detections that another program wrote.

    Args:
        path: path of the JSON file.
        inputs: id of the file's images, see `parse_id` -> (image id, window (x, y, width, height)
            or empty).
        classes: category id of the file -> class index.
        on_problem: ``"error"``, or ``"drop"`` what is wrong and count it.

    Returns:
        (a record for each input with detections, shifted to whole images; number of dropped
        entries by kind).

    Raises:
        FileNotFoundError: if there is no such file.
        ResultFileError: if it is no JSON list, or entries are wrong and ``on_problem`` says so; the
            message names the file and the first of the entries.
        ValueError: for another ``on_problem``.
    """
    if on_problem not in ("error", "drop"):
        raise ValueError(f"on_problem must be 'error' or 'drop', got {on_problem!r}")
    path, rows, problems, examples = Path(path), {}, Counter(), []
    for index, entry in enumerate(_load(path)):
        kind, row = _check(entry, inputs, classes)
        if kind:
            problems[kind] += 1
            if len(examples) < _MAX_EXAMPLES:
                examples.append(f"entry {index}: {kind}: {str(entry)[:120]}")
            continue
        rows.setdefault(parse_id(entry["image_id"]), []).append(row)

    if problems and on_problem == "error":
        counts = ", ".join(f"{number} x {kind}" for kind, number in sorted(problems.items()))
        raise ResultFileError(
            f"{path}: {counts}; correct the file, or pass on_problem='drop' to leave them out. "
            + "; ".join(examples)
        )

    records = []
    for number, entries in rows.items():
        table = np.array(entries, dtype=np.float64).reshape(-1, 6)
        image_id, window = inputs[number]
        boxes = table[:, :4] + np.tile(window[:2] or (0, 0), 2)
        labels = table[:, 5].astype(np.int64)
        records.append(OutputRecord(image_id, window, boxes, table[:, 4], labels))
    return records, problems


def to_coco_results(
    detections: BoxDetections, image_numbers: Sequence[int | str], category_ids: Sequence[int]
) -> list[dict]:
    """Turn detections into COCO's result format.

    Args:
        detections: detections on whole images.
        image_numbers: id in the annotation file of each image.
        category_ids: id in the file of each class.

    Returns:
        entries in the order of the detections.
    """
    sizes = np.concatenate(
        [detections.boxes[:, :2], detections.boxes[:, 2:] - detections.boxes[:, :2]], axis=1
    )
    columns = zip(
        detections.image_index.tolist(),
        detections.class_index.tolist(),
        sizes.tolist(),
        detections.scores.tolist(),
    )
    return [
        {
            "image_id": image_numbers[image],
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
        }
        for image, label, box, score in columns
    ]


def _load(path: Path) -> list:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no result file {path}; correct the path.") from None
    except TextError as error:
        raise ResultFileError(str(error)) from error
    if not isinstance(content, list):
        raise ResultFileError(
            f"{path} holds a {type(content).__name__}; a result file is a list of entries with "
            "image_id, category_id, bbox and score."
        )
    return content


def _check(
    entry: object, inputs: Mapping[int | str, object], classes: Mapping[int, int]
) -> tuple[str, tuple[float, ...]]:
    """(kind of problem or "", row x0, y0, x1, y1, score, class)."""
    try:
        x, y, width, height = (parse_number(value) for value in entry["bbox"])
        image, category = parse_id(entry["image_id"]), parse_id(entry["category_id"])
        score, known_image, known_class = (
            parse_number(entry["score"]),
            image in inputs,
            category in classes,
        )
    except (KeyError, TypeError, ValueError):
        return "malformed entry", ()
    if not known_image:
        return "unknown image", ()
    if not known_class:
        return "unknown category", ()
    if not all(map(math.isfinite, (x, y, width, height, score))):
        return "number not finite", ()
    return "", (x, y, x + width, y + height, score, classes[category])
