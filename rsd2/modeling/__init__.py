"""Detectors and their parts."""

from .angle_coder import AngleCoder
from .bottom_heavy_resnet import BottomHeavyResNet
from .criterion import SetCriterion
from .denoising import DenoisingQueries
from .matcher import HungarianMatcher
from .neck import ChannelMapper
from .rotated_deformable_detr import RotatedDeformableDETR
from .small_resnet import small_resnet
from .transformer import DeformableEncoder, RotatedDeformableDecoder

__all__ = [
    "AngleCoder",
    "BottomHeavyResNet",
    "ChannelMapper",
    "DeformableEncoder",
    "DenoisingQueries",
    "HungarianMatcher",
    "RotatedDeformableDETR",
    "RotatedDeformableDecoder",
    "SetCriterion",
    "small_resnet",
]
