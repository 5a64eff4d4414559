"""Exact IoU of rotated boxes: as a matrix, in pairs, as a list of overlaps, and in maxima.

Contract of all functions here: intersection over union of the two regions, exact up to rounding, in
[0, 1], never NaN, in the value and in the gradient. Anything non-finite in a box, or a side that is
not positive, gives IoU 0 with everything. Angles are Detectron2's, degrees counter-clockwise on
screen; any angle and any order of the sides. The result has the promoted dtype of the inputs, half
precision raised to float32: errors stay below 2e-5 in float32 and 1e-12 in float64, between boxes
that are more than 10,000 times as long as thick below 1e-16 times that number.

A comparison with a threshold is made in float64 wherever a float32 IoU could be on the wrong side
of it, so that it comes out the same for the reference and for the kernels of every device.

The kernels are in ``csrc``, the reference in :mod:`rsd2.ops.box_iou_rotated_reference`. The matrix
and the pairs are differentiable, once; their gradient is computed from the pairs that overlap, in
portions, on every device by the reference.

Shapes: N, M boxes, P pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import box_iou_rotated_reference as reference
from .extension import register_operator


class MaxIou(NamedTuple):
    """Greatest IoU of every box with the boxes of the other set.

    Attributes:
        row_max: (N,) maximum for each box of the first set; 0 if it overlaps none.
        row_argmax: (N,) int64, the first box of the second set with that IoU; -1 if none.
        column_max: (M,) maximum for each box of the second set; 0 if it overlaps none.
        column_argmax: (M,) int64, the first box of the first set with that IoU; -1 if none.
    """

    row_max: Tensor
    row_argmax: Tensor
    column_max: Tensor
    column_argmax: Tensor


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """IoU of every rotated box of one set with every one of another.

    Args:
        boxes1: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        boxes2: (M, 5), on the same device.
        out: (N, M) tensor that receives the result and is returned. It must have the dtype of the
            result and may have any strides but expanded ones. No gradient then.

    Returns:
        (N, M) IoU in [0, 1], in the promoted dtype of the inputs, at least float32.

    Raises:
        ValueError: if a shape is not (any, 5), devices differ, or ``out`` does not fit.
        RuntimeError: if ``out`` is given and a gradient is asked for.
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    if out is None:
        return torch.ops.rsd2.box_iou_rotated(boxes1, boxes2)

    expected = (len(boxes1), len(boxes2))
    if tuple(out.shape) != expected or out.dtype != boxes1.dtype or out.device != boxes1.device:
        raise ValueError(
            f"out must be {expected}, {boxes1.dtype}, on {boxes1.device}; got {tuple(out.shape)}, "
            f"{out.dtype}, on {out.device}"
        )

    # Entries of an expanded tensor alias each other: the last write would win at all of them.
    if any(size > 1 and stride == 0 for size, stride in zip(out.shape, out.stride())):
        raise ValueError("out is expanded: several of its entries share one place; clone it first")

    needs_grad = boxes1.requires_grad or boxes2.requires_grad or out.requires_grad
    # The out variant records nothing for autograd, so a gradient would silently be zero.
    if torch.is_grad_enabled() and needs_grad:
        raise RuntimeError("out= has no gradient: leave it out, or detach the tensors")
    torch.ops.rsd2.box_iou_rotated.out(boxes1.detach(), boxes2.detach(), out=out)
    return out


def paired_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of the i-th rotated box of one set with the i-th of another.

    Args:
        boxes1: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        boxes2: (N, 5), on the same device.

    Returns:
        (N,) IoU in [0, 1], in the promoted dtype of the inputs, at least float32.

    Raises:
        ValueError: if a shape is not (N, 5), or the numbers of boxes or their devices differ.
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    if len(boxes1) != len(boxes2):
        raise ValueError(
            f"paired boxes must have the same length, got {len(boxes1)} and {len(boxes2)}"
        )
    return torch.ops.rsd2.paired_iou_rotated(boxes1, boxes2)


def sparse_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, threshold: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """List the pairs of overlapping rotated boxes, without the (N, M) matrix; no gradient.

    Args:
        boxes1: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        boxes2: (M, 5), on the same device.
        threshold: number in [0, 1]; a pair is listed at IoU > threshold. An IoU up to 1e-12,
            which touching boxes may get by rounding, is no overlap at any threshold.

    Returns:
        rows: (P,) int64 into ``boxes1``.
        columns: (P,) int64 into ``boxes2``; pairs are sorted by row, then column.
        iou: (P,) in the promoted dtype of the inputs, at least float32.

    Raises:
        ValueError: if a shape is not (any, 5), devices differ, or the threshold is outside [0, 1].
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    check_threshold(threshold, "threshold")
    return torch.ops.rsd2.sparse_iou_rotated(boxes1.detach(), boxes2.detach(), threshold)


def max_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> MaxIou:
    """Greatest IoU of every box of either set with the other, without the matrix; no gradient.

    Args:
        boxes1: (N, 5) (cx, cy, w, h, a), pixels and degrees, floating.
        boxes2: (M, 5), on the same device.

    Returns:
        Maxima and where they are; an IoU up to 1e-12 is no overlap.

    Raises:
        ValueError: if a shape is not (any, 5) or devices differ.
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    return MaxIou(*torch.ops.rsd2.max_iou_rotated(boxes1.detach(), boxes2.detach()))


def check_boxes(boxes: Tensor, name: str) -> None:
    """Check that a tensor has the shape of rotated boxes.

    Args:
        boxes: tensor to check.
        name: name of the argument, for the message.

    Raises:
        ValueError: if the shape is not (N, 5).
    """
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"{name} must be (N, 5) (cx, cy, w, h, angle), got {tuple(boxes.shape)}")


def check_device(tensor: Tensor, boxes: Tensor, name: str) -> None:
    """Check that a tensor is on the device of the boxes.

    Args:
        tensor: any tensor.
        boxes: (N, 5).
        name: name of ``tensor``, in the plural, for the message.

    Raises:
        ValueError: if the devices differ.
    """
    if tensor.device != boxes.device:
        raise ValueError(f"{name} are on {tensor.device}, but the boxes are on {boxes.device}")


def check_threshold(threshold: float, name: str) -> None:
    """Check that a number can be an IoU threshold.

    Args:
        threshold: number to check.
        name: name of the argument, for the message.

    Raises:
        ValueError: if it is not in [0, 1].
    """
    if not (math.isfinite(threshold) and 0 <= threshold <= 1):
        raise ValueError(f"{name} must be in [0, 1], got {threshold}")


def result_dtype(first: Tensor, second: Tensor) -> torch.dtype:
    """Dtype of the IoU of two sets: the promoted one, at least float32.

    Args:
        first: any tensor.
        second: any tensor.
    """
    return torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)


def _checked(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    check_boxes(boxes1, "boxes1")
    check_boxes(boxes2, "boxes2")
    check_device(boxes2, boxes1, "boxes2")

    dtype = result_dtype(boxes1, boxes2)
    return boxes1.to(dtype), boxes2.to(dtype)


def _fake_matrix(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0])


def _fake_matrix_out(boxes1: Tensor, boxes2: Tensor, *, out: Tensor) -> None:
    return None


def _fake_paired(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[0])


def _fake_backward(grad: Tensor, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    return boxes1.new_empty(boxes1.shape), boxes2.new_empty(boxes2.shape)


def _fake_sparse(boxes1: Tensor, boxes2: Tensor, threshold: float) -> tuple[Tensor, ...]:
    # The number of pairs depends on the values, which tracing does not know.
    pairs = torch.library.get_ctx().new_dynamic_size()
    index = boxes1.new_empty(pairs, dtype=torch.int64)
    return index, torch.empty_like(index), boxes1.new_empty(pairs)


def _fake_maxima(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, ...]:
    best = [boxes.new_empty(boxes.shape[0]) for boxes in (boxes1, boxes2)]
    index = [torch.empty_like(values, dtype=torch.int64) for values in best]
    return best[0], index[0], best[1], index[1]


def _save_boxes(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _matrix_gradient(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.rsd2.box_iou_rotated_backward(grad, *ctx.saved_tensors)


def _paired_gradient(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.rsd2.paired_iou_rotated_backward(grad, *ctx.saved_tensors)


register_operator(
    "box_iou_rotated",
    reference.matrix,
    _fake_matrix,
    backward=_matrix_gradient,
    setup_context=_save_boxes,
)
register_operator("box_iou_rotated.out", reference.matrix_out, _fake_matrix_out, autocast=None)
register_operator(
    "paired_iou_rotated",
    reference.paired,
    _fake_paired,
    backward=_paired_gradient,
    setup_context=_save_boxes,
)
for _name, _backward in (
    ("box_iou_rotated_backward", reference.matrix_backward),
    ("paired_iou_rotated_backward", reference.paired_backward),
):
    register_operator(_name, _backward, _fake_backward, autocast=None, has_kernel=False)
register_operator("sparse_iou_rotated", reference.sparse, _fake_sparse)
register_operator("max_iou_rotated", reference.maxima, _fake_maxima)
