"""IoU of rotated boxes in plain PyTorch: the reference of the compiled kernels, on any device.

Method: in the frame of box A, which is [-W, W] x [-H, H], the intersection area is the sum over the
directed edges of B of the integral of clamp(y(x), -H, H) over the part of the edge with x in
[-W, W] (Green's theorem for the field (-clamp(y), 0), which needs no clipping and no sorting). For
a straight edge that integral has a closed form. Pairs whose circumscribed circles are apart are
found by one matrix product and never touched again.

Inside, everything is float64, because a float32 pair is only as good as its centre difference. The
operations and their order are those of ``csrc/rotated_geometry.h``, so that both have the same bits
in float64 and a decision like IoU > threshold is one decision; the device must have float64.
Differentiable; at kinks (identical boxes, touching edges) the gradient is that of one side, and
finite.

Shapes: N, M boxes, P pairs, E directed edges. Memory beyond the result is bounded by
``TEST_BUDGET`` tests and ``EDGE_BUDGET`` edges at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .trigonometry import RADIANS, angle_between_rests, small_sincos, split_quarter_turns

# Pairs tested for nearness at a time; 2 MB of float64, because fresh pages cost more than the test.
TEST_BUDGET = 1 << 18
# Directed edges integrated at a time; their dozen temporaries should stay in the L2 and L3 caches.
EDGE_BUDGET = 1 << 15
# Boxes that merely touch may get an IoU of some 1e-17 by rounding, which is no overlap.
NO_OVERLAP = 1e-12
# Beyond these magnitudes areas overflow or vanish in float64; such boxes count as invalid.
LARGEST, SMALLEST = 1e100, 1e-100
# Centres (N, 2), radii (N,) and validity (N,) of circumscribed circles.
Circles = tuple[Tensor, Tensor, Tensor]


class DescribedBoxes:
    """Per-box quantities of the pair formula, computed once for each box.

    Args:
        boxes: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.

    Attributes:
        columns: (7, N) float64: centre, half sides, the angle in [-45, 45] degrees, its sine and
            cosine. A quarter turn swaps the sides; a unit box replaces each invalid box.
        radii: (N,) float64, radii of the circumscribed circles.
        valid: (N,) bool, true where all numbers are finite and both sides positive.
    """

    def __init__(self, boxes: Tensor) -> None:
        wide, self.valid = _sanitize(boxes)
        cx, cy, w, h, angle = wide.unbind(1)

        # An odd number of quarter turns swaps the sides; the rest suits the series.
        turns, rest = split_quarter_turns(angle)
        is_odd = (turns & 1) == 1
        half_w, half_h = torch.where(is_odd, h, w) / 2, torch.where(is_odd, w, h) / 2

        sin, cos = small_sincos(rest * RADIANS)
        self.columns = torch.stack([cx, cy, half_w, half_h, rest, sin, cos])
        self.radii = torch.linalg.vector_norm(self.columns[2:4].detach(), dim=0)

    def __len__(self) -> int:
        return len(self.radii)

    def __getitem__(self, index: Tensor) -> DescribedBoxes:
        """The boxes at an integer index (K,)."""
        chosen = object.__new__(DescribedBoxes)

        # Not through the constructor, which would describe the boxes a second time.
        chosen.columns, chosen.radii = self.columns.index_select(1, index), self.radii[index]
        chosen.valid = self.valid[index]
        return chosen

    @property
    def circles(self) -> Circles:
        """Circumscribed circles, without gradient."""
        return self.columns[:2].detach().t(), self.radii, self.valid

    def near_ious(
        self,
        other: DescribedBoxes,
        wanted: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """IoU of the pairs that may overlap, in portions of bounded size.

        Args:
            other: M boxes.
            wanted: function of (rows, columns) that gives a mask (P,) of the pairs to compute; all
                pairs if None.

        Yields:
            (rows, columns, IoU), (P,) each: positions in ``self`` and ``other``, int64, by row,
            then column, and the IoU, float64. Pairs not listed have IoU 0.
        """
        # A pair has four directed edges, hence a quarter of the budget.
        for rows, columns in near_pairs(self.circles, other.circles, EDGE_BUDGET // 4):
            if wanted is not None:
                mask = wanted(rows, columns)
                rows, columns = rows[mask], columns[mask]

            one = self.columns.index_select(1, rows)
            two = other.columns.index_select(1, columns)
            yield rows, columns, iou_of_columns(one, two)


def matrix(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Reference of ``rsd2::box_iou_rotated``; arguments as of the public function, one dtype."""
    out = boxes1.new_empty(len(boxes1), len(boxes2))
    matrix_out(boxes1, boxes2, out=out)
    return out


def matrix_out(boxes1: Tensor, boxes2: Tensor, *, out: Tensor) -> None:
    """Reference of ``rsd2::box_iou_rotated.out``."""
    out.zero_()
    # Entries of pairs that are far apart stay at zero.
    for rows, columns, iou in DescribedBoxes(boxes1).near_ious(DescribedBoxes(boxes2)):
        out[rows, columns] = iou.to(out.dtype)


def matrix_backward(grad: Tensor, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Implementation of ``rsd2::box_iou_rotated_backward`` on every device."""

    def portions(one: DescribedBoxes, two: DescribedBoxes) -> Iterator[tuple[Tensor, ...]]:
        for rows, columns in near_pairs(one.circles, two.circles, EDGE_BUDGET // 4):
            yield rows, columns, grad[rows, columns]

    return _backward(boxes1, boxes2, portions)


def paired(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Reference of ``rsd2::paired_iou_rotated``."""
    one, two = DescribedBoxes(boxes1), DescribedBoxes(boxes2)

    step = EDGE_BUDGET // 4
    parts = zip(one.columns.split(step, dim=1), two.columns.split(step, dim=1))
    iou = torch.cat([iou_of_columns(*part) for part in parts])

    # The formula returns rounding noise, not 0, for boxes that are apart or invalid.
    return torch.where(_meet(one, two), iou, 0.0).to(boxes1.dtype)


def paired_backward(grad: Tensor, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Implementation of ``rsd2::paired_iou_rotated_backward`` on every device."""

    def portions(one: DescribedBoxes, two: DescribedBoxes) -> Iterator[tuple[Tensor, ...]]:
        for rows in torch.nonzero(_meet(one, two)).flatten().split(EDGE_BUDGET // 4):
            yield rows, rows, grad[rows]

    return _backward(boxes1, boxes2, portions)


def sparse(boxes1: Tensor, boxes2: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Reference of ``rsd2::sparse_iou_rotated``."""
    none = torch.zeros(0, dtype=torch.int64, device=boxes1.device)
    # An empty portion first, so that torch.cat has something to join when nothing overlaps.
    found = [(none, none, boxes1.new_empty(0))]
    for rows, columns, iou in DescribedBoxes(boxes1).near_ious(DescribedBoxes(boxes2)):
        over = iou > max(threshold, NO_OVERLAP)
        found.append((rows[over], columns[over], iou[over].to(boxes1.dtype)))

    rows, columns, iou = map(torch.cat, zip(*found))
    return rows, columns, iou


def maxima(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reference of ``rsd2::max_iou_rotated``."""
    best = [boxes1.new_zeros(len(boxes)) for boxes in (boxes1, boxes2)]
    index = [torch.full_like(values, -1, dtype=torch.int64) for values in best]

    for rows, columns, iou in DescribedBoxes(boxes1).near_ious(DescribedBoxes(boxes2)):
        over = iou > NO_OVERLAP
        ends, iou = (rows[over], columns[over]), iou[over].to(boxes1.dtype)
        for side, (here, there) in enumerate((ends, ends[::-1])):
            # Portions come by row, then column: an equal value of a later one has a greater index.
            before = best[side][here]
            best[side].scatter_reduce_(0, here, iou, "amax")
            wins = (iou == best[side][here]) & (iou > before)
            # Of equal values within a portion, the lowest index wins.
            here, there = here[wins], there[wins]
            index[side].scatter_reduce_(0, here, there, "amin", include_self=False)
    return best[0], index[0], best[1], index[1]


def _backward(
    boxes1: Tensor,
    boxes2: Tensor,
    portions: Callable[[DescribedBoxes, DescribedBoxes], Iterator[tuple[Tensor, ...]]],
) -> tuple[Tensor, Tensor]:
    """Gradients in both sets, from portions of pairs (rows, columns, gradient of their IoU)."""
    with _recording():
        leaves = [boxes.detach().requires_grad_() for boxes in (boxes1, boxes2)]
        described = [DescribedBoxes(boxes) for boxes in leaves]
    totals = [torch.zeros_like(boxes.columns) for boxes in described]

    # Gradients of the columns are summed over the portions, then go back to the boxes once.
    for rows, columns, grad in portions(*described):
        # Pairs whose gradient is zero contribute nothing and need no graph.
        matters = torch.nonzero(grad).flatten()
        ends = rows[matters], columns[matters]

        # A fresh graph for each portion, freed with it, bounds the memory.
        with _recording():
            chosen = [
                boxes.columns.detach().index_select(1, end).requires_grad_()
                for boxes, end in zip(described, ends)
            ]
            iou = iou_of_columns(*chosen)
        shares = torch.autograd.grad(iou, chosen, grad[matters].double())

        for total, end, share in zip(totals, ends, shares):
            total.index_add_(1, end, share)

    grad1, grad2 = torch.autograd.grad([boxes.columns for boxes in described], leaves, totals)
    return grad1, grad2


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """Record for autograd, also within an operator, where the dispatcher may be past it."""
    key = torch._C.DispatchKey.AutogradFunctionality
    with torch.enable_grad(), torch._C._SetExcludeDispatchKeyGuard(key, False):
        yield


def _meet(one: DescribedBoxes, two: DescribedBoxes) -> Tensor:
    """Flags (N,) of the pairs that are valid and whose circumscribed circles may meet."""
    distance = (two.columns[:2] - one.columns[:2]).detach().square().sum(0)
    # The slack covers the rounding of the distance; a pair kept in vain only costs time.
    reach = (one.radii + two.radii) * (1 + 2e-6)
    return one.valid & two.valid & (distance <= reach.square())


def near_pairs(
    circles1: Circles, circles2: Circles, at_a_time: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """List the pairs whose circles may meet, in portions; misses none and lists few others.

    Args:
        circles1: centres (N, 2) in pixels, radii (N,), valid (N,) bool; finite, float64.
        circles2: the same of M circles.
        at_a_time: largest number of pairs in a portion, >= 1.

    Yields:
        (rows, columns), int64 (P,) each, sorted by row, then column; no pair with an invalid one.
    """
    (centers1, radii1, valid1), (centers2, radii2, valid2) = circles1, circles2
    if len(centers1) == 0 or len(centers2) == 0:
        return

    # |c1 - c2|^2 <= (r1 + r2)^2 as one product of rank 5; the shift keeps its rounding small, and
    # the slack is far above that rounding and far below any pixel.
    shift = centers1.mean(0)
    c1, c2 = centers1 - shift, centers2 - shift
    # Each square is rounded towards "near", so that a touching pair is never missed.
    own1 = c1.square().sum(1) * (1 - 1e-13) - radii1.square() * (1 + 1e-13)
    own2 = c2.square().sum(1) * (1 - 1e-13) - radii2.square() * (1 + 1e-13)
    # Infinity pushes the product above zero: an invalid box is near nothing.
    own1 = torch.where(valid1, own1, torch.inf)
    own2 = torch.where(valid2, own2, torch.inf)
    one = torch.column_stack([c1, radii1, own1, torch.ones_like(own1)])
    two = torch.stack([-2 * c2[:, 0], -2 * c2[:, 1], -2 * radii2, torch.ones_like(own2), own2])

    # Small portions wait until enough pairs have come together to be worth a call.
    waiting, num_waiting = [], 0
    rows_at_a_time = max(1, TEST_BUDGET // len(c2))
    for first in range(0, len(one), rows_at_a_time):
        slots = _nonzero((one[first : first + rows_at_a_time] @ two <= 0).flatten())
        waiting.append(slots + first * len(c2))
        num_waiting += len(slots)
        if num_waiting < at_a_time and first + rows_at_a_time < len(one):
            continue

        for part in torch.cat(waiting).split(at_a_time):
            rows = part.div(len(c2), rounding_mode="floor")
            yield rows, part - rows * len(c2)
        waiting, num_waiting = [], 0


def _nonzero(mask: Tensor) -> Tensor:
    """Indices (P,) int64 of the true entries of a flat mask."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # 3.5x faster than torch's
    return torch.nonzero(mask).flatten()


def iou_of_columns(one: Tensor, two: Tensor) -> Tensor:
    """IoU of pairs of boxes.

    Args:
        one: (7, P) columns of :class:`DescribedBoxes`.
        two: (7, P).

    Returns:
        (P,) float64 in [0, 1].
    """
    cx1, cy1, half_w1, half_h1, rest1, sin1, cos1 = one.unbind(0)
    cx2, cy2, half_w2, half_h2, rest2, _, _ = two.unbind(0)

    # Box 1 is the frame: only the difference of the angles matters, modulo quarter turns.
    angle, is_turned = angle_between_rests(rest1, rest2)
    w = torch.where(is_turned, half_h2, half_w2)
    h = torch.where(is_turned, half_w2, half_h2)
    sin, cos = small_sincos(angle * RADIANS)

    dx, dy = cx2 - cx1, cy2 - cy1
    center_x = cos1 * dx - sin1 * dy
    center_y = sin1 * dx + cos1 * dy

    # Half sides of box 2 as vectors in the frame of box 1; corners are sums and differences.
    wx, wy, hx, hy = cos * w, sin * w, sin * h, cos * h
    x = center_x + torch.stack([-wx - hx, wx - hx, wx + hx, hx - wx])
    y = center_y + torch.stack([wy - hy, -wy - hy, hy - wy, wy + hy])

    # Corners run clockwise on a screen whose y points down, which makes the integral negative.
    overlap = (0.0 - clamped_edge_integral(x, y, half_w1, half_h1)).clamp(min=0)
    return ratio(overlap, 4 * half_w1 * half_h1, 4 * half_w2 * half_h2)


def clamped_edge_integral(x: Tensor, y: Tensor, half_w: Tensor, half_h: Tensor) -> Tensor:
    """Sum over directed edges of the integral of clamp(y, -H, H) dx within [-W, W].

    Args:
        x: (E, P) abscissae of the vertices of a closed polygon in the frame of a box.
        y: (E, P) ordinates.
        half_w: (P,) W > 0.
        half_h: (P,) H > 0.

    Returns:
        (P,) signed intersection area; positive if the polygon runs counter-clockwise in a frame
        whose y points down.
    """
    next_x, next_y = x.roll(-1, 0), y.roll(-1, 0)
    run, rise = next_x - x, next_y - y

    # Only the part of an edge with x in [-W, W] contributes.
    x0 = torch.minimum(torch.maximum(x, -half_w), half_w)
    x1 = torch.minimum(torch.maximum(next_x, -half_w), half_w)

    # Shares of the edge that were cut off at its two ends; a vertical edge is not cut.
    upright = run == 0
    safe_run = torch.where(upright, 1.0, run)
    y0 = y + torch.where(upright, 0.0, (x0 - x) / safe_run) * rise
    y1 = next_y - torch.where(upright, 0.0, (next_x - x1) / safe_run) * rise

    # Heights are clamped to the box; what is cut off decides where the edge bends.
    c0 = torch.minimum(torch.maximum(y0, -half_h), half_h)
    c1 = torch.minimum(torch.maximum(y1, -half_h), half_h)
    outside0, outside1 = y0 - c0, y1 - c1

    # Where an edge stays in one of the three bands the second term is 0; leaving the division out
    # there also keeps gradients bounded.
    crosses = (c0 != c1) & ((outside0 != 0) | (outside1 != 0))
    safe_rise = torch.where(crosses, y1 - y0, 1.0)
    bend = torch.where(crosses, (c1 - c0) * (outside0 + outside1) / safe_rise, 0.0)

    # Summed one by one, because the order of a reduction is not promised.
    first, *others = ((x1 - x0) * (c0 + c1 + bend)).unbind(0)
    return sum(others, start=first) / 2


def ratio(overlap: Tensor, area1: Tensor, area2: Tensor) -> Tensor:
    """IoU in [0, 1] from the areas of the overlap and of two regions, all > 0 but the first."""
    # Rounding may make the overlap exceed the smaller region, and the ratio then exceed 1.
    overlap = torch.minimum(overlap, torch.minimum(area1, area2))
    return (overlap / (area1 + area2 - overlap)).clamp(0.0, 1.0)


def _sanitize(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 boxes with invalid ones replaced by a unit box, and which were valid (N,)."""
    wide = boxes.double()
    numbers, sides = wide.detach(), wide.detach()[:, 2:4]
    # NaN fails both comparisons.
    valid = (numbers.abs() < LARGEST).all(1) & (sides > SMALLEST).all(1)
    unit = wide.new_tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    return torch.where(valid[:, None], wide, unit), valid
