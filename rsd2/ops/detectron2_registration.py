"""Gives Detectron2 the rotated operators that it lacks when its extension is not compiled.

Detectron2's ``RotatedBoxes``, ``pairwise_iou_rotated``, ``nms_rotated``, ``ROIAlignRotated``, its
rotated RPN and ``RotatedCOCOEvaluator`` call ``torch.ops.detectron2.*``, which its compiled part
defines. Detectron2 itself is not imported here, unless that part is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from importlib.machinery import PathFinder

import torch

from .box_iou_rotated import box_iou_rotated
from .nms_rotated import nms_rotated
from .roi_align_rotated import roi_align_rotated, roi_align_rotated_backward

# A library takes its operators along when it is collected, so it lives here.
_LIBRARIES: list[torch.library.Library] = []


def register_detectron2_ops() -> tuple[str, ...]:
    """Register our rotated operators under ``torch.ops.detectron2`` where none exist.

    Detectron2's own extension wins: it is loaded first, if there is one, and only missing operators
    are added. Calling this again does nothing. Detectron2 need not be installed. IoU and RoIAlign
    stay differentiable under these names.

    Returns:
        Names of the operators that this call registered.
    """
    _load_detectron2_extension()
    implementations = {
        "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor": box_iou_rotated,
        "nms_rotated(Tensor dets, Tensor scores, float iou_threshold) -> Tensor": nms_rotated,
        "roi_align_rotated_forward(Tensor input, Tensor rois, float spatial_scale, "
        "int pooled_height, int pooled_width, int sampling_ratio) -> Tensor": _roi_align_forward,
        "roi_align_rotated_backward(Tensor grad, Tensor rois, float spatial_scale, "
        "int pooled_height, int pooled_width, int batch_size, int channels, int height, "
        "int width, int sampling_ratio) -> Tensor": _roi_align_backward,
    }
    registered = []
    for schema, function in implementations.items():
        name = schema.partition("(")[0]
        if hasattr(torch.ops.detectron2, name):
            continue
        if not _LIBRARIES:
            # Created on demand, so that nothing is registered where the extension has it all.
            _LIBRARIES.append(torch.library.Library("detectron2", "FRAGMENT"))
        _LIBRARIES[0].define(schema)
        # Composite: it decomposes into our operators, which have their own gradient and kernels.
        _LIBRARIES[0].impl(name, function, "CompositeImplicitAutograd")
        registered.append(name)
    return tuple(registered)


def _load_detectron2_extension() -> None:
    """Import ``detectron2._C``, which defines its operators, if it was built."""
    try:
        package = importlib.util.find_spec("detectron2")
    except ImportError:  # an import hook may refuse it outright
        return
    if package is None or not package.submodule_search_locations:
        return

    # Searched by path, because importlib.util.find_spec would import the package.
    if PathFinder.find_spec("_C", list(package.submodule_search_locations)) is None:
        return

    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        warnings.warn(
            f"Detectron2's extension does not load ({error}); rsd2's operators take its place",
            stacklevel=3,
        )


def _roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    size = (pooled_height, pooled_width)
    return roi_align_rotated(input, rois, size, spatial_scale, sampling_ratio)


def _roi_align_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    # Detectron2's signature repeats the sizes, so a mismatch would read beyond the gradient.
    expected = (len(rois), channels, pooled_height, pooled_width)
    if tuple(grad.shape) != expected:
        raise ValueError(f"grad must be {expected}, got {tuple(grad.shape)}")

    shape = (batch_size, channels, height, width)
    return roi_align_rotated_backward(grad, rois, shape, spatial_scale, sampling_ratio)
