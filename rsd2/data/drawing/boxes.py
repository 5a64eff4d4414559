"""Drawing of rotated boxes on images: outline, first vertex, angle, label; contact sheets.

Functions that draw return a new RGB image; nothing is shown on a screen.

Shapes: N objects, H, W image height and width.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from rsd2.data.dataset_dicts import polygon_of
from rsd2.structures import boxes_to_corners

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Sub-pixel digits of OpenCV's fixed-point drawing coordinates.
_SHIFT = 4
_GOLDEN = (math.sqrt(5) - 1) / 2


def class_color(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: always the same, and unlike that of its neighbours.

    Args:
        index: category id, >= 0.

    Returns:
        RGB, 0-255.
    """
    hue = (0.02 + index * _GOLDEN) % 1.0
    saturation = (1.0, 0.7, 0.85)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_rotated_boxes(
    image_rgb: np.ndarray,
    boxes: np.ndarray | torch.Tensor,
    *,
    labels: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    colors: Sequence[tuple[int, int, int]] | None = None,
    polygons: np.ndarray | None = None,
    show_angle: bool = False,
    show_first_vertex: bool = False,
    thickness: int | None = None,
) -> np.ndarray:
    """Draw rotated boxes.

    Args:
        image_rgb: (H, W, 3) uint8; not changed.
        boxes: (N, 5) cx, cy, w, h in pixels, angle in degrees; rows with a NaN are not drawn.
        labels: N texts, written above the boxes, or below where there is no room; where another
            text stands already they are left out, so that what is written can be read.
        scores: N numbers in [0, 1], written as percent after the labels.
        colors: N RGB triples; those of class 0 if None.
        polygons: (N, 4, 2) xy pixels, drawn instead of the boxes' outlines; for annotated
            quadrilaterals, whose first vertex has a meaning.
        show_angle: draw a tick from the centre along the side w, to where the angle points.
        show_first_vertex: draw a dot at the first vertex of the polygon, else of the box.
        thickness: thickness of the lines, pixels; by the size of the image if None.

    Returns:
        (H, W, 3) uint8, a new image.

    Raises:
        ValueError: if the image is not (H, W, 3) uint8 or lengths differ from N.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(
            f"image_rgb must be (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}."
        )

    tensor = torch.as_tensor(boxes).detach().cpu().double().reshape(-1, 5)
    lists = {"labels": labels, "scores": scores, "colors": colors, "polygons": polygons}
    for name, values in lists.items():
        if values is not None and len(values) != len(tensor):
            raise ValueError(f"{len(tensor)} boxes but {len(values)} {name}; give one for each.")

    corners = boxes_to_corners(tensor).numpy()
    outlines = corners if polygons is None else np.asarray(polygons).reshape(-1, 4, 2)
    canvas = np.array(image_rgb, order="C")
    line = thickness or max(1, round(min(canvas.shape[:2]) / 600))

    # All outlines before any text, so that no line crosses what is written.
    captions = []
    for index, (box, corner, outline) in enumerate(zip(tensor.numpy(), corners, outlines)):
        if not (np.isfinite(box).all() and np.isfinite(outline).all()):
            continue

        color = class_color(0) if colors is None else tuple(int(c) for c in colors[index])
        cv2.polylines(canvas, [_fixed(outline)], True, color, line, cv2.LINE_AA, _SHIFT)
        if show_angle:
            # Corners 1 and 2 bound the side that the angle points at.
            _line(canvas, box[:2], (corner[1] + corner[2]) / 2, color, line)
        captions.append((_caption(index, labels, scores), outline, color))

    taken = np.zeros((0, 4))
    for text, outline, color in captions:
        low, high = outline.min(axis=0), outline.max(axis=0)
        if text and (high > 0).all() and (low < canvas.shape[1::-1]).all():
            plate = _write_at_box(canvas, text, outline, color, taken)
            taken = np.concatenate([taken, plate])

    for _, outline, color in captions if show_first_vertex else ():
        _dot(canvas, outline[0], color, line + 1)
    return canvas


def draw_dataset_dict(
    image_rgb: np.ndarray,
    annotations: Sequence[dict],
    class_names: Sequence[str],
    *,
    show_labels: bool = True,
) -> np.ndarray:
    """Draw the annotations of a dataset dict: quadrilateral, first vertex, angle of the fitted box.

    Args:
        image_rgb: (H, W, 3) uint8.
        annotations: dicts with ``bbox``, ``category_id`` and, if known, ``poly``, ``difficult``.
        class_names: names of the categories, by their ids.
        show_labels: write the class names; a star marks ``difficult`` 1, two mark 2.

    Returns:
        (H, W, 3) uint8, a new image.
    """
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 5)
    polygons = [polygon_of(annotation, "to be drawn") for annotation in annotations]
    names = [class_names[a["category_id"]] + "*" * a.get("difficult", 0) for a in annotations]
    return draw_rotated_boxes(
        image_rgb,
        boxes,
        labels=names if show_labels else None,
        colors=[class_color(a["category_id"]) for a in annotations],
        polygons=np.array(polygons).reshape(-1, 4, 2),
        show_angle=True,
        show_first_vertex=True,
    )


def make_contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str] | None = None,
    *,
    columns: int = 4,
    cell_size: int = 320,
) -> np.ndarray:
    """Put images into a grid, each shrunk to fit its cell, with a line of text below it.

    Args:
        images: (H, W, 3) uint8 each, any sizes.
        captions: one text for each; None for none.
        columns: number of columns of the grid, >= 1.
        cell_size: width and height of a cell, pixels.

    Returns:
        (rows * (cell_size + text), columns * cell_size, 3) uint8.

    Raises:
        ValueError: if there is no image or the captions' number differs.
    """
    if not images or (captions is not None and len(captions) != len(images)):
        raise ValueError(
            f"A contact sheet needs at least one image and as many captions, got {len(images)} "
            f"images and {None if captions is None else len(captions)} captions."
        )

    columns = min(columns, len(images))
    band = 0 if captions is None else 20
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (cell_size + band), columns * cell_size, 3), 32, dtype=np.uint8)

    for index, image in enumerate(images):
        top, left = index // columns * (cell_size + band), index % columns * cell_size
        scale = (cell_size - 4) / max(image.shape[:2])
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        # Shrunk by means of areas, or thin outlines would vanish between the pixels.
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        cell = cv2.resize(image, size, interpolation=method)
        y, x = top + (cell_size - size[1]) // 2, left + (cell_size - size[0]) // 2

        sheet[y : y + size[1], x : x + size[0]] = cell
        if captions is not None:
            text = _shorten(captions[index], cell_size - 8, 0.4)
            origin = (left + 4, top + cell_size + 14)
            cv2.putText(sheet, text, origin, _FONT, 0.4, (235, 235, 235), 1, cv2.LINE_AA)
    return sheet


def _fixed(points: np.ndarray) -> np.ndarray:
    """Continuous coordinates as OpenCV's fixed-point pixel-centre coordinates, within int32."""
    limited = np.clip(np.asarray(points, dtype=np.float64) - 0.5, -1e6, 1e6)
    return np.round(limited * (1 << _SHIFT)).astype(np.int32)


def _line(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, color: tuple[int, ...], width: int
) -> None:
    points = [tuple(int(v) for v in _fixed(point)) for point in (start, end)]
    cv2.line(canvas, points[0], points[1], color, width, cv2.LINE_AA, _SHIFT)


def _dot(canvas: np.ndarray, center: np.ndarray, color: tuple[int, ...], radius: int) -> None:
    """A disc with a dark rim, so that it shows on any ground."""
    point = tuple(int(v) for v in _fixed(center))
    cv2.circle(canvas, point, (radius + 1) << _SHIFT, (0, 0, 0), -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(canvas, point, radius << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)


def _caption(index: int, labels: Sequence[str] | None, scores: Sequence[float] | None) -> str:
    parts = [] if labels is None else [labels[index]]
    if scores is not None:
        parts.append(f"{100 * float(scores[index]):.0f}%")
    return " ".join(parts)


def _write_at_box(
    canvas: np.ndarray, text: str, outline: np.ndarray, color: tuple[int, ...], taken: np.ndarray
) -> np.ndarray:
    """Write on a plate of the box's colour above or below it, inside the image, if there is room.

    Returns the plate (1, 4) x0, y0, x1, y1, or (0, 4) if every place is taken.
    """
    scale = max(0.33, min(canvas.shape[:2]) / 2400)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    tall = height + base + 1
    x = int(np.clip(outline[:, 0].min(), 0, max(0, canvas.shape[1] - width - 2)))

    for top in (outline[:, 1].min() - tall - 1, outline[:, 1].max() + 2):
        top = int(np.clip(top, 0, max(0, len(canvas) - tall - 1)))
        plate = np.array([[x, top, x + width + 1, top + tall]], dtype=np.float64)
        apart = (taken[:, :2] >= plate[:, 2:]) | (taken[:, 2:] <= plate[:, :2])
        if apart.any(axis=1).all():
            break
    else:
        return np.zeros((0, 4))

    cv2.rectangle(canvas, (x, top), (x + width + 1, top + tall), color, -1)
    # Luma: black on light colours, white on dark ones.
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if brightness > 128 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 1, top + height + 1), _FONT, scale, ink, 1, cv2.LINE_AA)
    return plate


def _shorten(text: str, width: int, scale: float) -> str:
    """Cut the front of a text that is wider than ``width`` pixels."""
    short = text
    while len(short) > 4 and cv2.getTextSize(short, _FONT, scale, 1)[0][0] > width:
        short = "..." + short.lstrip(".")[1:]
    return short
