"""Modules without a task: attention, encodings, feed-forward blocks."""

from .blur_pool import BlurPool
from .deformable_attention import (
    DeformableAttention,
    RotatedDeformableAttention,
    rotated_sampling_locations,
)
from .deformable_conv import DeformableConv2d, sampled_deform_conv2d
from .mlp import MLP, FeedForward
from .position_encoding import SinePositionEncoding, sine_embedding
from .precision import at_least_float32

__all__ = [
    "MLP",
    "BlurPool",
    "DeformableAttention",
    "DeformableConv2d",
    "FeedForward",
    "RotatedDeformableAttention",
    "SinePositionEncoding",
    "at_least_float32",
    "rotated_sampling_locations",
    "sampled_deform_conv2d",
    "sine_embedding",
]
