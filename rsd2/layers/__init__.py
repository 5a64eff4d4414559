"""Modules without a task: attention, encodings, feed-forward blocks."""

from .blur_pool import BlurPool
from .deformable_attention import (
    DeformableAttention,
    RotatedDeformableAttention,
    rotated_sampling_locations,
)
from .mlp import MLP, FeedForward
from .position_encoding import SinePositionEncoding, sincos_positions_2d, sine_embedding
from .precision import at_least_float32
from .transformer_block import Attention, Block, init_transformer_weights

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "BlurPool",
    "DeformableAttention",
    "FeedForward",
    "RotatedDeformableAttention",
    "SinePositionEncoding",
    "at_least_float32",
    "init_transformer_weights",
    "rotated_sampling_locations",
    "sincos_positions_2d",
    "sine_embedding",
]
