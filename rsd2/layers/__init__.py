"""Modules without a task: attention, encodings, feed-forward blocks."""

from .blur_pool import BlurPool
from .deformable_attention import (
    DeformableAttention,
    RotatedDeformableAttention,
    rotated_sampling_locations,
)
from .mlp import MLP, FeedForward
from .position_encoding import SinePositionEncoding, sine_embedding
from .precision import at_least_float32

__all__ = [
    "MLP",
    "BlurPool",
    "DeformableAttention",
    "FeedForward",
    "RotatedDeformableAttention",
    "SinePositionEncoding",
    "at_least_float32",
    "rotated_sampling_locations",
    "sine_embedding",
]
