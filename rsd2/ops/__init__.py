"""Operators of rsd2: rotated IoU and NMS, multi-scale deformable attention, rotated RoIAlign.

Importing this package also registers the operators that a Detectron2 without its compiled
extension lacks, see :func:`register_detectron2_ops`.
"""

from .box_iou_rotated import MaxIou as MaxIou
from .box_iou_rotated import box_iou_rotated as box_iou_rotated
from .box_iou_rotated import max_iou_rotated as max_iou_rotated
from .box_iou_rotated import paired_iou_rotated as paired_iou_rotated
from .box_iou_rotated import sparse_iou_rotated as sparse_iou_rotated
from .box_polygon_iou import box_polygon_iou as box_polygon_iou
from .box_polygon_iou import paired_box_polygon_iou as paired_box_polygon_iou
from .detectron2_registration import register_detectron2_ops as register_detectron2_ops
from .ms_deform_attn import ms_deform_attn as ms_deform_attn
from .nms_rotated import batched_nms_rotated as batched_nms_rotated
from .nms_rotated import nms_rotated as nms_rotated
from .roi_align_rotated import roi_align_rotated as roi_align_rotated
from .roi_align_rotated import roi_align_rotated_backward as roi_align_rotated_backward

register_detectron2_ops()
