"""Detectors and their parts."""

from .anchor_sampling import BoundedMemoryRPN, MinimumQualityMatcher, WeightedNegativeRPN
from .angle_coder import AngleCoder
from .backbones.bottom_heavy_resnet import BottomHeavyResNet
from .backbones.simple_pyramid import SimplePyramid
from .backbones.small_resnet import small_resnet
from .backbones.vit import VisionTransformer
from .criterion import SetCriterion
from .denoising import DenoisingQueries
from .matcher import HungarianMatcher
from .neck import ChannelMapper
from .quirks import DetectorQuirks
from .rotated_deformable_detr import RotatedDeformableDETR
from .transformer import DeformableEncoder, RotatedDeformableDecoder

__all__ = [
    "AngleCoder",
    "BottomHeavyResNet",
    "BoundedMemoryRPN",
    "ChannelMapper",
    "DeformableEncoder",
    "DenoisingQueries",
    "DetectorQuirks",
    "HungarianMatcher",
    "MinimumQualityMatcher",
    "RotatedDeformableDETR",
    "RotatedDeformableDecoder",
    "SetCriterion",
    "SimplePyramid",
    "VisionTransformer",
    "WeightedNegativeRPN",
    "small_resnet",
]
