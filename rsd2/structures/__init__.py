"""Rotated boxes: the angle convention of rsd2 and every conversion from and to others."""

from .rotated_boxes import (
    boxes_to_corners,
    canonicalize,
    corners_to_boxes,
    from_horizontal,
    from_opencv,
    from_openmmlab,
    to_horizontal,
    to_openmmlab,
    wrap_angle,
)

__all__ = [
    "boxes_to_corners",
    "canonicalize",
    "corners_to_boxes",
    "from_horizontal",
    "from_opencv",
    "from_openmmlab",
    "to_horizontal",
    "to_openmmlab",
    "wrap_angle",
]
