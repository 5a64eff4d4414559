"""Exact IoU of rotated boxes with simple polygons, in plain PyTorch.

The contract is that of :mod:`rsd2.ops.box_iou_rotated`, the method that of its reference: values in
[0, 1], never NaN; anything non-finite, a side or an area that is not positive gives IoU 0 with
everything. Inside, everything is float64; differentiable, under autograd the graph keeps all near
pairs.

Shapes: N boxes, M polygons, V vertices, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .box_iou_rotated import check_boxes, check_device, result_dtype
from .box_iou_rotated_reference import (
    EDGE_BUDGET,
    LARGEST,
    DescribedBoxes,
    clamped_edge_integral,
    near_pairs,
    ratio,
)


def box_polygon_iou(boxes: Tensor, polygons: Tensor) -> Tensor:
    """IoU of every rotated box with every simple polygon, exactly.

    Polygons may run in either direction and be concave; repeated vertices do nothing, so that
    shorter polygons are padded with their last vertex. For a polygon that crosses itself, areas
    are winding-number sums (parts that run the other way count negatively): not what a GIS calls
    its area, so repair such polygons first.

    Args:
        boxes: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        polygons: (M, V, 2) xy in pixels, V >= 3, floating, on the same device.

    Returns:
        (N, M) IoU in [0, 1], in the promoted dtype of the inputs, at least float32.

    Raises:
        ValueError: if a shape is wrong or devices differ.
    """
    check_boxes(boxes, "boxes")
    _check_polygons(polygons)
    check_device(polygons, boxes, "polygons")

    one = DescribedBoxes(boxes)
    points, origins, areas, valid = _sanitize_polygons(polygons)
    # near_pairs wants circles: the farthest vertex from the middle bounds the polygon.
    reach = torch.linalg.vector_norm(points.detach(), dim=-1).amax(-1)

    def near_ious() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        at_a_time = max(1, EDGE_BUDGET // polygons.shape[1])
        circles = (origins.detach(), reach, valid)
        # One pair costs as many edges as the polygon has vertices.
        for rows, columns in near_pairs(one.circles, circles, at_a_time):
            chosen = one.columns.index_select(1, rows)
            shapes = points[columns], origins[columns], areas[columns]
            yield rows, columns, _iou_of_columns_and_polygons(chosen, *shapes)

    dtype = result_dtype(boxes, polygons)
    return _scatter(len(boxes), len(polygons), near_ious(), dtype, boxes.device)


def paired_box_polygon_iou(boxes: Tensor, polygons: Tensor) -> Tensor:
    """IoU of the i-th rotated box with the i-th simple polygon, as :func:`box_polygon_iou`.

    Args:
        boxes: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        polygons: (N, V, 2) xy in pixels, V >= 3, floating, on the same device.

    Returns:
        (N,) IoU in [0, 1], in the promoted dtype of the inputs, at least float32.

    Raises:
        ValueError: if a shape is wrong, or the numbers or devices differ.
    """
    check_boxes(boxes, "boxes")
    _check_polygons(polygons)
    check_device(polygons, boxes, "polygons")
    if len(boxes) != len(polygons):
        raise ValueError(
            "paired boxes and polygons must have the same length, got "
            f"{len(boxes)} and {len(polygons)}"
        )

    one = DescribedBoxes(boxes)
    points, origins, areas, valid = _sanitize_polygons(polygons)
    step = max(1, EDGE_BUDGET // polygons.shape[1])
    parts = zip(one.columns.split(step, dim=1), *(t.split(step) for t in (points, origins, areas)))
    iou = torch.cat([_iou_of_columns_and_polygons(*part) for part in parts])

    # The formula returns rounding noise, not 0, for regions that are invalid.
    iou = torch.where(one.valid & valid, iou, torch.zeros_like(iou))
    return iou.to(result_dtype(boxes, polygons))


def _scatter(
    num_rows: int,
    num_columns: int,
    portions: Iterator[tuple[Tensor, Tensor, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Zeros (N, M) with the portions' values at their (rows, columns)."""
    result = torch.zeros(num_rows * num_columns, dtype=dtype, device=device)
    slots, values = [], []
    for rows, columns, value in portions:
        slot, value = rows * num_columns + columns, value.to(dtype)
        # Writing in place would make autograd keep the whole matrix for each portion.
        if value.requires_grad:
            slots.append(slot)
            values.append(value)
        else:
            result[slot] = value
    if values:
        result = result.index_put((torch.cat(slots),), torch.cat(values))
    return result.view(num_rows, num_columns)


def _iou_of_columns_and_polygons(
    columns: Tensor, points: Tensor, origins: Tensor, areas: Tensor
) -> Tensor:
    """IoU (P,) of box columns (7, P) with polygons as :func:`_sanitize_polygons` gives them."""
    cx, cy, half_w, half_h, _, sin, cos = columns.unbind(0)
    shift = origins - torch.stack([cx, cy], dim=1)

    # The frame of the box; the polygon's middle is subtracted first, which keeps the digits.
    dx, dy = (points + shift[:, None]).permute(2, 1, 0)  # (V, P) each
    x, y = cos * dx - sin * dy, sin * dx + cos * dy
    # Either direction of the polygon is allowed, so the sign carries no information.
    inter = clamped_edge_integral(x, y, half_w, half_h).abs()
    return ratio(inter, 4 * half_w * half_h, areas)


def _sanitize_polygons(polygons: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float64 vertices about their middle (M, V, 2), middles (M, 2), areas (M,), valid (M,)."""
    wide = polygons.double()
    valid = (wide.detach().abs() < LARGEST).flatten(1).all(1)
    points = torch.where(valid[:, None, None], wide, 0.0)

    origins = ((points.amin(1) + points.amax(1)) / 2).detach()
    # Coordinates about the middle are small, so the areas below lose no digits to cancellation.
    points = points - origins[:, None]
    x, y = points.unbind(-1)

    # The shoelace formula.
    areas = (x * (y.roll(-1, 1) - y.roll(1, 1))).sum(1).abs() / 2
    valid = valid & (areas.detach() > 0)
    return points, origins, torch.where(valid, areas, 1.0), valid


def _check_polygons(polygons: Tensor) -> None:
    if polygons.dim() != 3 or polygons.shape[2] != 2 or polygons.shape[1] < 3:
        raise ValueError(f"polygons must be (M, V >= 3, 2), got {tuple(polygons.shape)}")
