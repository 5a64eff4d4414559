"""Rotated boxes: THE angle convention of rsd2 and every conversion from and to other ones.

A box is ``(cx, cy, w, h, a)``: centre and sides in pixels (continuous coordinates, x to the right,
y DOWN), ``a`` in degrees, counter-clockwise as seen on the screen, 0 = the side ``w`` lies along x.
This is Detectron2's ``BoxMode.XYWHA_ABS``.

::

    a = 0                              a = 30: turned counter-clockwise on screen

    +----> x                                        _ 1
    |     0 ------------ 1                       _-    .
    v     |       c      | h                  _-   c    2
    y     3 ------------ 2                   0       _-
                 w                            .   _-
                                               3-        w still runs from 0 to 1

A point (x', y') of the box's own frame, x' along w and y' along h, lies at

    x = cx + cos(a) x' + sin(a) y'        y = cy - sin(a) x' + cos(a) y'

and the corners 0, 1, 2, 3 are (-w/2, -h/2), (w/2, -h/2), (w/2, h/2), (-w/2, h/2): clockwise on
screen, starting at the box's own top-left.

One rectangle has many such descriptions. The **canonical** one has w >= h and a in [-90, 90);
squares (w == h) have a in [-45, 45).

====================  ===========  =========  ==========================  =====================
other convention      positive     unit       range                       sides
====================  ===========  =========  ==========================  =====================
OpenMMLab ``le90``    clockwise    radians    [-pi/2, pi/2)               w >= h
OpenMMLab ``le135``   clockwise    radians    [-pi/4, 3 pi/4)             w >= h
OpenMMLab ``oc``      clockwise    radians    (0, pi/2]                   as they fall
OpenCV minAreaRect    clockwise    degrees    (0, 90] in 4.5.1 and later  as they fall
                                              4.x, [-90, 0) before, and
                                              not to be relied upon
xyxy                  none         none       none                        x0 <= x1, y0 <= y1
====================  ===========  =========  ==========================  =====================

All of them are the same rectangle after ``a = -degrees(theta)`` and :func:`canonicalize`.

Shapes: ... any leading dimensions, none included. Integers are read as float32; everything else
keeps its dtype; inside, numbers are float64, so the device must have float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rsd2.ops.trigonometry import sincos_degrees

OPENMMLAB_VERSIONS = ("le90", "le135", "oc")

# Corner 0 to 3 in units of (w, h): clockwise on screen from the box's own top-left.
_CORNER_SIGNS = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
# Four points have at most six hull edges; the sides come first, so that they win ties.
_POINT_PAIRS = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3))
# Rectangles whose areas differ by less than this share of the points' squared extent are ties.
_AREA_TIE = 1e-12
# Quadrilaterals converted at a time: what they need meanwhile stays in the processor's cache.
_PORTION = 2048


def wrap_angle(angle: Tensor, period: float = 180.0, start: float | None = None) -> Tensor:
    """Add whole periods so that angles lie in [start, start + period), strictly, in any dtype.

    Angles already in the range come back bit for bit.

    Args:
        angle: any shape, floating; any unit, the same as that of ``period``.
        period: length of the range, > 0, in the unit of ``angle``.
        start: first value of the range; ``-period / 2`` if None.

    Returns:
        Wrapped angles, shaped and typed like ``angle``; NaN and infinity become NaN.

    Raises:
        ValueError: if ``period`` is not positive.
    """
    if not period > 0:
        raise ValueError(f"period must be positive, got {period}; use 360, 180 or 90 degrees")

    start = -period / 2 if start is None else start
    end = start + period

    # Detached: the number of periods is constant, so the gradient stays 1.
    wrapped = angle - torch.floor((angle.detach() - start) / period) * period
    # The division rounds, so the result may miss the range by one period or lie on its open end.
    wrapped = torch.where(wrapped < start, wrapped + period, wrapped)
    return torch.where(wrapped >= end, wrapped - period, wrapped)


def canonicalize(boxes: Tensor) -> Tensor:
    """Describe the same rectangles with w >= h, a in [-90, 90); squares with a in [-45, 45).

    Idempotent. Sides are compared as numbers: a box with a negative side stays invalid.

    Args:
        boxes: (..., 5) (cx, cy, w, h, a), pixels and degrees, any angle.

    Returns:
        (..., 5) canonical boxes, a new tensor.

    Raises:
        ValueError: if the last dimension is not 5.
    """
    cx, cy, w, h, angle = _as_boxes(boxes).unbind(-1)
    angle = wrap_angle(angle)
    swap = w < h
    # Two-sided, because angle + 90 of a small angle loses fewer digits than angle + 270.
    quarter = wrap_angle(torch.where(angle < 0, angle + 90.0, angle - 90.0))
    angle = torch.where(swap, quarter, angle)
    # A square looks the same after each quarter turn, so its angle has period 90.
    angle = torch.where(w == h, wrap_angle(angle, 90.0), angle)

    return torch.stack([cx, cy, torch.where(swap, h, w), torch.where(swap, w, h), angle], dim=-1)


def boxes_to_corners(boxes: Tensor) -> Tensor:
    """Corners of rotated boxes, clockwise on screen from the box's own top-left.

    Args:
        boxes: (..., 5) (cx, cy, w, h, a), pixels and degrees, any angle.

    Returns:
        (..., 4, 2) xy in pixels; row k is corner k of the module's picture.

    Raises:
        ValueError: if the last dimension is not 5.
    """
    boxes = _as_boxes(boxes)

    # In float64: far from the origin, float32 rounds a corner by a visible share of a pixel.
    wide = boxes.double()
    sin, cos = sincos_degrees(wide[..., 4])
    signs = wide.new_tensor(_CORNER_SIGNS)
    local = signs * wide[..., None, 2:4]
    x = wide[..., 0:1] + cos[..., None] * local[..., 0] + sin[..., None] * local[..., 1]
    y = wide[..., 1:2] - sin[..., None] * local[..., 0] + cos[..., None] * local[..., 1]
    return torch.stack([x, y], dim=-1).to(boxes.dtype)


def corners_to_boxes(corners: Tensor, keep_first_vertex: bool = False) -> Tensor:
    """Minimum-area rotated rectangles around four points each; exact on rectangles.

    A side of the smallest rectangle lies along an edge of the points' convex hull (Freeman and
    Shapira, 1975), and four points have at most six hull edges: all six directions are tried.
    The order of the points, their orientation and self-crossing quadrilaterals do not matter.

    Degenerate input: four equal points give w = h = 0 and a = 0; points on one line give h = 0
    and the line's direction; a NaN or an infinity anywhere in a quadrilateral makes its five
    numbers NaN.

    Args:
        corners: (..., 4, 2) xy in pixels.
        keep_first_vertex: if true, the box is not canonical; instead, it is described so that
            ``boxes_to_corners(box)[0]`` is the vertex of the rectangle nearest to the given first
            point; a is in [-180, 180) and w, h are as they fall. Annotated quadrilaterals often
            carry the heading in their first point. Corners of a box always run clockwise on
            screen: for a counter-clockwise quadrilateral the first one agrees and the others come
            in reverse order.

    Returns:
        (..., 5) boxes (cx, cy, w, h, a), canonical unless ``keep_first_vertex``.

    Raises:
        ValueError: if the last dimensions are not (4, 2).
    """
    if corners.shape[-2:] != (4, 2):
        raise ValueError(f"corners must be (..., 4, 2), got {tuple(corners.shape)}")

    corners = corners if corners.is_floating_point() else corners.float()
    portions = corners.reshape(-1, 4, 2).split(_PORTION)
    boxes = torch.cat([_smallest_rectangles(portion, keep_first_vertex) for portion in portions])
    return boxes.reshape(*corners.shape[:-2], 5)


def from_openmmlab(boxes_rad: Tensor, version: str = "le90") -> Tensor:
    """Canonical boxes from OpenMMLab's (cx, cy, w, h, theta), radians, clockwise on screen.

    Args:
        boxes_rad: (..., 5); theta may lie outside the range of its version.
        version: ``le90``, ``le135`` or ``oc``. The three differ only in which description of a
            rectangle they choose, so that the canonical box is the same; checked to catch typos.

    Returns:
        (..., 5) canonical boxes in degrees; ``a = -degrees(theta)`` before wrapping.

    Raises:
        ValueError: for an unknown version or if the last dimension is not 5.
    """
    _check_version(version)
    boxes = _as_boxes(boxes_rad)

    # From radians in float64, because float32 would lose digits of the angle before it is
    # wrapped.
    degrees = torch.rad2deg(boxes[..., 4:].double())
    wide = torch.cat([boxes[..., :4].double(), -degrees], dim=-1)
    return canonicalize(wide.to(boxes.dtype))


def to_openmmlab(boxes: Tensor, version: str = "le90") -> Tensor:
    """OpenMMLab's (cx, cy, w, h, theta), radians, clockwise on screen, from our boxes.

    Args:
        boxes: (..., 5) (cx, cy, w, h, a), pixels and degrees, any angle.
        version: ``le90``: theta in [-pi/2, pi/2), w >= h; ``le135``: theta in [-pi/4, 3 pi/4),
            w >= h; ``oc``: theta in (0, pi/2], sides as they fall. The bounds hold strictly for
            pi as rounded to the dtype.

    Returns:
        (..., 5) boxes in radians.

    Raises:
        ValueError: for an unknown version or if the last dimension is not 5.
    """
    _check_version(version)
    boxes = _as_boxes(boxes)
    canonical = canonicalize(boxes.double())

    center, w, h = canonical[..., :2], canonical[..., 2], canonical[..., 3]
    theta = wrap_angle(-canonical[..., 4])

    if version == "le135":
        theta = wrap_angle(theta, 180.0, start=-45.0)
    elif version == "oc":
        # The range is open at zero: an angle whose radians round to it counts as zero.
        is_positive = torch.deg2rad(theta).to(boxes.dtype) > 0
        swap = ~is_positive & (theta > -90.0)
        theta = torch.where(is_positive, theta, torch.where(swap, theta + 90.0, theta + 180.0))
        w, h = torch.where(swap, h, w), torch.where(swap, w, h)

    theta = torch.deg2rad(theta).to(boxes.dtype)
    if version != "oc":
        # Rounding to the dtype may have reached the open end of the range.
        first = -math.pi / 2 if version == "le90" else -math.pi / 4
        start, end = theta.new_tensor(first), theta.new_tensor(first + math.pi)
        theta = torch.where(theta >= end, start, theta)

    sides = torch.stack([w, h], dim=-1)
    return torch.cat([center.to(boxes.dtype), sides.to(boxes.dtype), theta[..., None]], dim=-1)


def from_opencv(rects: Tensor) -> Tensor:
    """Canonical boxes from the numbers of ``cv2.minAreaRect``, whatever the OpenCV version.

    OpenCV's angle is clockwise on screen, in degrees. Its range and the choice of the side that is
    called width changed within 4.x and again in 5.x; the rectangle did not.

    Args:
        rects: (..., 5) (cx, cy, width, height, angle), that is
            ``((cx, cy), (width, height), angle)`` flattened.

    Returns:
        (..., 5) canonical boxes.

    Raises:
        ValueError: if the last dimension is not 5.
    """
    rects = _as_boxes(rects)
    return canonicalize(torch.cat([rects[..., :4], -rects[..., 4:]], dim=-1))


def from_horizontal(xyxy: Tensor) -> Tensor:
    """Canonical rotated boxes from horizontal ones; a tall box gets a = -90.

    Args:
        xyxy: (..., 4) (x0, y0, x1, y1), pixels.

    Returns:
        (..., 5) canonical boxes with a = 0 or a = -90.

    Raises:
        ValueError: if the last dimension is not 4.
    """
    if xyxy.shape[-1:] != (4,):
        raise ValueError(f"xyxy must be (..., 4), got {tuple(xyxy.shape)}")
    xyxy = xyxy if xyxy.is_floating_point() else xyxy.float()
    low, high = xyxy[..., :2], xyxy[..., 2:]
    angle = torch.zeros_like(xyxy[..., :1])
    return canonicalize(torch.cat([(low + high) / 2, high - low, angle], dim=-1))


def to_horizontal(boxes: Tensor) -> Tensor:
    """Smallest horizontal boxes that contain the rotated ones.

    Args:
        boxes: (..., 5) (cx, cy, w, h, a), pixels and degrees, any angle.

    Returns:
        (..., 4) (x0, y0, x1, y1), pixels.

    Raises:
        ValueError: if the last dimension is not 5.
    """
    boxes = _as_boxes(boxes)
    cx, cy, w, h, angle = boxes.double().unbind(-1)

    # Half extents of the turned rectangle along x and y.
    sin, cos = sincos_degrees(angle)
    half_x = (cos.abs() * w + sin.abs() * h) / 2
    half_y = (sin.abs() * w + cos.abs() * h) / 2
    return torch.stack([cx - half_x, cy - half_y, cx + half_x, cy + half_y], dim=-1).to(boxes.dtype)


def _as_boxes(boxes: Tensor) -> Tensor:
    if boxes.shape[-1:] != (5,):
        raise ValueError(f"boxes must be (..., 5) (cx, cy, w, h, angle), got {tuple(boxes.shape)}")
    return boxes if boxes.is_floating_point() else boxes.float()


def _check_version(version: str) -> None:
    if version not in OPENMMLAB_VERSIONS:
        raise ValueError(f"version must be one of {OPENMMLAB_VERSIONS}, got {version!r}")


def _smallest_rectangles(corners: Tensor, keep_first_vertex: bool) -> Tensor:
    """:func:`corners_to_boxes` of (N, 4, 2); six directions, four points and N side by side."""
    x, y = corners.double().permute(2, 1, 0).contiguous()  # (4, N) each
    origin_x, origin_y = x.mean(0), y.mean(0)
    x, y = x - origin_x, y - origin_y

    ux, uy = _edge_directions(x, y)  # (6, N) each
    along = ux[:, None] * x + uy[:, None] * y
    across = ux[:, None] * y - uy[:, None] * x

    # Extents of the four points in each of the six directions.
    left, right, top, bottom = along.amin(1), along.amax(1), across.amin(1), across.amax(1)
    widths, heights = right - left, bottom - top
    best = _smallest_of_six(widths, heights)

    def pick(values: Tensor) -> Tensor:
        return values.gather(0, best).squeeze(0)

    ux, uy, mid_along, mid_across = map(pick, (ux, uy, (left + right) / 2, (top + bottom) / 2))

    # Back to pixels; y points down, so the angle on screen has the opposite sign.
    cx = origin_x + ux * mid_along - uy * mid_across
    cy = origin_y + uy * mid_along + ux * mid_across
    angle = torch.rad2deg(torch.atan2(-uy, ux))
    boxes = torch.stack([cx, cy, pick(widths), pick(heights), angle], dim=-1)

    finite = torch.isfinite(corners).flatten(1).all(dim=1, keepdim=True)
    boxes = torch.where(finite, boxes, torch.full_like(boxes, math.nan))

    if keep_first_vertex:
        boxes = _start_at(boxes, corners[:, 0].double()).to(corners.dtype)
        return torch.cat([boxes[:, :4], wrap_angle(boxes[:, 4:], 360.0)], dim=-1)
    return canonicalize(boxes.to(corners.dtype))


def _edge_directions(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors, x and y (6, N) each, of the pairs of four points; equal ones give (1, 0)."""
    first, second = map(list, zip(*_POINT_PAIRS))
    run, rise = x[second] - x[first], y[second] - y[first]
    lengths = torch.hypot(run, rise)
    divisor = lengths.clamp(min=1e-300)
    # A divisor above zero keeps the unused branch finite: NaN there would enter the gradient.
    return torch.where(lengths > 0, run / divisor, 1.0), torch.where(lengths > 0, rise / divisor, 0)


def _smallest_of_six(widths: Tensor, heights: Tensor) -> Tensor:
    """Index (1, N) of the smallest of six rectangles (6, N); the longest side decides a tie.

    A long edge fixes a direction better than a short one, and of points on a line only directions
    of distinct points describe it.
    """
    areas = widths * heights
    extent = torch.maximum(widths, heights).amax(0, keepdim=True)

    tied = areas <= areas.amin(0, keepdim=True) + _AREA_TIE * extent * extent
    return torch.where(tied, widths, -1.0).max(0, keepdim=True).indices  # argmax is slow along it


def _start_at(boxes: Tensor, first: Tensor) -> Tensor:
    """Describe boxes (..., 5) so that corner 0 is their corner nearest to ``first`` (..., 2)."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    distances = (boxes_to_corners(boxes) - first[..., None, :]).square().sum(-1)
    nearest = distances.argmin(-1)

    # Corner 1 becomes corner 0 when w runs along the old h, a quarter turn clockwise.
    odd = (nearest % 2) == 1
    return torch.stack(
        [cx, cy, torch.where(odd, h, w), torch.where(odd, w, h), angle - 90.0 * nearest], dim=-1
    )
