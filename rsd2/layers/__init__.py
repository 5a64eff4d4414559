"""Modules without a task: attention, encodings, feed-forward blocks."""

from .blur_pool import BlurPool
from .deformable_attention import (
    DeformableAttention,
    RotatedDeformableAttention,
    rotated_sampling_locations,
)
from .deformable_conv import DeformableConv2d, sampled_deform_conv2d
from .mlp import MLP, FeedForward
from .position_encoding import (
    SinePositionEncoding,
    cached_sincos_positions_2d,
    sincos_positions_2d,
    sine_embedding,
)
from .precision import at_least_float32
from .transformer_block import Attention, Block, init_transformer_weights

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "BlurPool",
    "DeformableAttention",
    "DeformableConv2d",
    "FeedForward",
    "RotatedDeformableAttention",
    "SinePositionEncoding",
    "at_least_float32",
    "cached_sincos_positions_2d",
    "init_transformer_weights",
    "rotated_sampling_locations",
    "sampled_deform_conv2d",
    "sincos_positions_2d",
    "sine_embedding",
]
