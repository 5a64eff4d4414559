"""Rotated boxes: the angle convention of rsd2 and every conversion from and to others."""

from .rotated_boxes import boxes_to_corners as boxes_to_corners
from .rotated_boxes import canonicalize as canonicalize
from .rotated_boxes import corners_to_boxes as corners_to_boxes
from .rotated_boxes import from_horizontal as from_horizontal
from .rotated_boxes import from_opencv as from_opencv
from .rotated_boxes import from_openmmlab as from_openmmlab
from .rotated_boxes import to_horizontal as to_horizontal
from .rotated_boxes import to_openmmlab as to_openmmlab
from .rotated_boxes import wrap_angle as wrap_angle
