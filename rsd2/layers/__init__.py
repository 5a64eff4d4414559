"""Modules without a task: attention, encodings, feed-forward blocks."""

from .blur_pool import BlurPool as BlurPool
from .deformable_attention import DeformableAttention as DeformableAttention
from .deformable_attention import RotatedDeformableAttention as RotatedDeformableAttention
from .deformable_attention import rotated_sampling_locations as rotated_sampling_locations
from .deformable_conv import DeformableConv2d as DeformableConv2d
from .deformable_conv import sampled_deform_conv2d as sampled_deform_conv2d
from .mlp import MLP as MLP
from .mlp import FeedForward as FeedForward
from .position_encoding import SinePositionEncoding as SinePositionEncoding
from .position_encoding import cached_sincos_positions_2d as cached_sincos_positions_2d
from .position_encoding import sincos_positions_2d as sincos_positions_2d
from .position_encoding import sine_embedding as sine_embedding
from .precision import at_least_float32 as at_least_float32
from .transformer_block import Attention as Attention
from .transformer_block import Block as Block
from .transformer_block import init_transformer_weights as init_transformer_weights
