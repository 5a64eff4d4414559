"""Pictures of errors: parts of images with labels and detections drawn over them."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
from scipy.spatial import cKDTree

from rsd2.data.drawing.boxes import draw_rotated_boxes
from rsd2.io.image_io import read_image

from .error_input import LabelledSet
from .error_statistics import RunErrors, count_errors_of_images

MISSED, FOUND, FALSE = (255, 205, 0), (70, 200, 110), (235, 60, 60)
LEGEND = "Green: found objects; yellow: objects that are not found; red: false detections."

_SIDE = 384
_LARGEST_PART = 512
_MOST_PAIRS = 6
_EXAMPLES = 2

Picture = tuple[np.ndarray, str]


def draw_worst_images(
    labels: LabelledSet, run: RunErrors, counted: np.ndarray, count: int
) -> list[Picture]:
    """Draw the images with most errors; of a large one the part that holds most of them.

    Args:
        labels: labels of the dataset.
        run: errors of the run.
        counted: (G,) bool, objects that count.
        count: most images to draw.

    Returns:
        (pixels, caption) of each image that has errors, the worst first.
    """
    errors = count_errors_of_images(labels, run, counted)
    ranking = np.argsort(-errors.sum(axis=1), kind="stable")[:count]
    false, missed = run.judgement.is_false & run.is_shown, counted & ~run.is_found
    pictures = []
    for number in ranking[errors[ranking].sum(axis=1) > 0].tolist():
        rows = np.flatnonzero(false & (run.detections.image_index == number))
        objects = np.flatnonzero(missed & (labels.truth.image_index == number))
        polygons = [run.detections.corners()[rows], labels.truth.polygons[objects]]
        centers = np.concatenate(polygons).mean(axis=1)

        near = cKDTree(centers).query_ball_point(
            centers, _LARGEST_PART / 2, p=np.inf, return_length=True
        )
        caption = (
            f"{labels.truth.image_ids[number]}: {errors[number, 0]} false, "
            f"{errors[number, 1]} not found"
        )
        center, shown = centers[near.argmax()], np.flatnonzero(labels.truth.image_index == number)
        pictures.append(_draw(labels, run, number, rows, shown, center, _LARGEST_PART, caption))
    return pictures


def draw_confusions(labels: LabelledSet, run: RunErrors, rows: np.ndarray) -> list[Picture]:
    """Draw the most frequent confusions of two classes: the object and what it was taken for.

    Args:
        labels: labels of the dataset.
        run: errors of the run.
        rows: (N,) detections of confused classes, best score first.

    Returns:
        (pixels, caption) of examples, the most frequent confusion first.
    """
    truth, detections = labels.truth, run.detections
    about = run.judgement.about[rows]
    pairs = list(zip(truth.class_index[about].tolist(), detections.class_index[rows].tolist()))
    pictures = []
    for pair, number in Counter(pairs).most_common(_MOST_PAIRS):
        was, seen = (truth.class_names[label] for label in pair)
        for row in [row for row, own in zip(rows.tolist(), pairs) if own == pair][:_EXAMPLES]:
            shown, objects = np.array([row]), run.judgement.about[[row]]
            corners = np.concatenate([detections.corners()[row], truth.polygons[objects[0]]])
            low, high = corners.min(axis=0), corners.max(axis=0)
            caption = f"{was} taken for {seen} ({number} times), score {detections.scores[row]:.2f}"
            image, part = int(detections.image_index[row]), max(48.0, 3 * float((high - low).max()))
            center = (low + high) / 2
            pictures.append(_draw(labels, run, image, shown, objects, center, part, caption))
    return pictures


def _draw(
    labels: LabelledSet,
    run: RunErrors,
    image: int,
    rows: np.ndarray,
    objects: np.ndarray,
    center: np.ndarray,
    side: float,
    caption: str,
) -> Picture:
    """Draw some detections and objects of an image; on grey if it cannot be read."""
    record = labels.records[image]
    try:
        pixels = read_image(record["file_name"])
    except (OSError, ValueError):
        # The boxes show most of the error, and one broken image must not cost the whole report.
        pixels = np.full((record["height"], record["width"], 3), 128, dtype=np.uint8)
        caption += f"; {record['file_name']} cannot be read"

    size = np.array(pixels.shape[1::-1])
    side = min(side, float(size.max()))
    low = np.clip(np.round(center - side / 2), 0, np.maximum(size - side, 0)).astype(int)
    part = pixels[low[1] : low[1] + round(side), low[0] : low[0] + round(side)]
    zoom = _SIDE / max(part.shape[:2])
    wanted = [max(1, round(extent * zoom)) for extent in part.shape[1::-1]]
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    canvas = cv2.resize(np.ascontiguousarray(part), wanted, interpolation=method)

    polygons = np.concatenate([labels.truth.polygons[objects], run.detections.corners()[rows]])
    colors = [FOUND if known else MISSED for known in run.is_found[objects]] + [FALSE] * len(rows)
    # No names: on a phone they could not be read, and would hide what they name.
    drawn = draw_rotated_boxes(
        canvas,
        np.zeros((len(polygons), 5)),
        colors=colors,
        polygons=(polygons - low) * zoom,
        thickness=2,
    )
    return drawn, caption
