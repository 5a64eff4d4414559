"""Detectors and their parts."""

from .anchor_sampling import BoundedMemoryRPN, MinimumQualityMatcher, WeightedNegativeRPN
from .angle_coder import AngleCoder
from .attention_supervision import AttentionLoss
from .bottom_heavy_resnet import BottomHeavyResNet
from .criterion import SetCriterion
from .denoising import DenoisingQueries
from .matcher import HungarianMatcher
from .neck import ChannelMapper
from .rotated_deformable_detr import RotatedDeformableDETR
from .simple_pyramid import SimplePyramid
from .small_resnet import small_resnet
from .sspnet import SSPNet
from .transformer import DeformableEncoder, RotatedDeformableDecoder
from .vit import VisionTransformer

__all__ = [
    "AngleCoder",
    "AttentionLoss",
    "BottomHeavyResNet",
    "BoundedMemoryRPN",
    "ChannelMapper",
    "DeformableEncoder",
    "DenoisingQueries",
    "HungarianMatcher",
    "MinimumQualityMatcher",
    "RotatedDeformableDETR",
    "RotatedDeformableDecoder",
    "SSPNet",
    "SetCriterion",
    "SimplePyramid",
    "VisionTransformer",
    "WeightedNegativeRPN",
    "small_resnet",
]
