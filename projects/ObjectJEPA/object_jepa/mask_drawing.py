"""Pictures of what a pre-training step hides, keeps and predicts, and of its errors.

Shapes: H, W sides of the image, N = h w tokens, K kept, P predicted, G objects.
"""

from __future__ import annotations

import cv2
import numpy as np

from rsd2.data.drawing.boxes import draw_rotated_boxes, make_contact_sheet

CAPTIONS = ("boxes, object patches", "kept for the context", "hidden; loss set framed", "error")
_OBJECT, _LOSS, _LOSS_OBJECT = (255, 200, 0), (0, 220, 255), (255, 60, 60)
_DIM = 0.25
_LEAST_SIDE = 448


def draw_masks(
    image_rgb: np.ndarray,
    boxes: np.ndarray,
    *,
    grid: tuple[int, int],
    object_tokens: np.ndarray,
    keep: np.ndarray,
    predicted: np.ndarray,
    errors: np.ndarray,
) -> np.ndarray:
    """Draw the four views of one image side by side.

    Args:
        image_rgb: (H, W, 3) uint8; H and W are multiples of h and w.
        boxes: (G, 5) cx, cy, w, h in pixels, angle in degrees.
        grid: (h, w) tokens.
        object_tokens: (N,) bool, tokens of any object.
        keep: (K,) int64, tokens that the context encoder sees.
        predicted: (P,) int64, tokens of the loss.
        errors: (P,) float, loss of each predicted token.

    Returns:
        (height, width, 3) uint8 RGB: boxes and object patches; the kept patches; the patches of the
        loss framed, those on objects in red; their errors from dark to bright, with the range in
        the caption.

    Raises:
        ValueError: the image is not a multiple of the grid.
    """
    height, width = image_rgb.shape[:2]
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"an image of {height} x {width} has no {grid[0]} x {grid[1]} patches")

    zoom = max(1, -(-_LEAST_SIDE // max(height, width)))
    large = cv2.resize(image_rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)

    # Boxes are in continuous coordinates, so the zoom is a plain factor.
    moved = np.asarray(boxes, dtype=np.float64).reshape(-1, 5) * (zoom, zoom, zoom, zoom, 1)
    kept = _flags(keep, grid)
    is_object = np.asarray(object_tokens, dtype=bool).reshape(grid)
    seen = _dim(large, ~kept)
    loss = _flags(predicted, grid)
    framed = _frame(_dim(large, kept), loss & ~is_object, _LOSS)
    low, high = float(np.min(errors)), float(np.max(errors))

    views = [
        draw_rotated_boxes(_frame(large, is_object, _OBJECT), moved),
        draw_rotated_boxes(seen, moved),
        _frame(framed, loss & is_object, _LOSS_OBJECT),
        _heat(large, predicted, errors, grid, (low, high)),
    ]

    captions = [*CAPTIONS[:3], f"{CAPTIONS[3]}: {low:.3g} (dark) to {high:.3g} (bright)"]
    cell = max(large.shape[:2]) + 4
    return make_contact_sheet(views, captions, columns=len(views), cell_size=cell)


def _flags(index: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Convert indices to flags (h, w) bool."""
    flags = np.zeros(grid[0] * grid[1], dtype=bool)
    flags[np.asarray(index)] = True
    return flags.reshape(grid)


def _patches(flags: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Mark the pixels of the flagged patches, (H, W) bool."""
    sides = [length // count for length, count in zip(image.shape, flags.shape)]
    return np.kron(flags, np.ones(sides, dtype=bool)).astype(bool)


def _dim(image: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Copy the image with its flagged patches darkened."""
    result = image.copy()
    chosen = _patches(flags, image)
    result[chosen] = (result[chosen] * _DIM).astype(np.uint8)
    return result


def _frame(image: np.ndarray, flags: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Copy the image with a line around each flagged patch."""
    result = image.copy()
    rows, columns = (length // count for length, count in zip(image.shape, flags.shape))
    for row, column in np.argwhere(flags):
        top, left = int(row * rows), int(column * columns)
        corner = (left + columns - 2, top + rows - 2)
        cv2.rectangle(result, (left + 1, top + 1), corner, color, 1)
    return result


def _heat(
    image: np.ndarray,
    predicted: np.ndarray,
    errors: np.ndarray,
    grid: tuple[int, int],
    ends: tuple[float, float],
) -> np.ndarray:
    """Draw the dark image with its predicted patches in the colours of their errors."""
    span = ends[1] - ends[0]
    # Equal errors have no range; the middle of the colours stands for them.
    share = np.clip((np.asarray(errors) - ends[0]) / span, 0, 1) if span > 0 else 0.5
    levels = np.zeros(grid[0] * grid[1], dtype=np.uint8)
    levels[np.asarray(predicted)] = np.round(255 * np.asarray(share)).astype(np.uint8)
    colors = cv2.applyColorMap(levels.reshape(grid), cv2.COLORMAP_INFERNO)[..., ::-1]

    sides = [length // count for length, count in zip(image.shape, grid)]
    flags = _flags(predicted, grid)
    result = _dim(image, np.ones_like(flags))
    chosen = _patches(flags, image)
    result[chosen] = np.kron(colors, np.ones((*sides, 1), dtype=np.uint8))[chosen]
    return result
