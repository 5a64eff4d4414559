"""Operators of rsd2: rotated IoU and NMS, multi-scale deformable attention, rotated RoIAlign.

Importing this package also registers the operators that a Detectron2 without its compiled
extension lacks, see :func:`register_detectron2_ops`.
"""

from .box_iou_rotated import (
    MaxIou,
    box_iou_rotated,
    max_iou_rotated,
    paired_iou_rotated,
    sparse_iou_rotated,
)
from .box_polygon_iou import box_polygon_iou, paired_box_polygon_iou
from .detectron2_registration import register_detectron2_ops
from .ms_deform_attn import ms_deform_attn
from .nms_rotated import batched_nms_rotated, nms_rotated
from .roi_align_rotated import roi_align_rotated, roi_align_rotated_backward

__all__ = [
    "MaxIou",
    "batched_nms_rotated",
    "box_iou_rotated",
    "box_polygon_iou",
    "max_iou_rotated",
    "ms_deform_attn",
    "nms_rotated",
    "paired_box_polygon_iou",
    "paired_iou_rotated",
    "register_detectron2_ops",
    "roi_align_rotated",
    "roi_align_rotated_backward",
    "sparse_iou_rotated",
]

register_detectron2_ops()
