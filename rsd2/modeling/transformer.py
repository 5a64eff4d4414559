"""Deformable encoder and rotated deformable decoder.

Shapes: B images, S tokens of all levels together, Q queries, C channels, K classes, A angle bins.
Boxes are (cx, cy, w, h) in normalised box coordinates (``outputs.ImageGeometry``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rsd2.layers import (
    MLP,
    DeformableAttention,
    FeedForward,
    RotatedDeformableAttention,
    sine_embedding,
)

from .heads import DetectionHeads
from .matcher import Predictions
from .quirks import NO_QUIRKS, DetectorQuirks


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward block, post-norm.

    Source: Deformable DETR (arXiv 2010.04159), section 4.2.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(embed_dim, num_heads, num_levels, num_points)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim, feedforward_dim, dropout)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Refine tokens (B, S, C); the other arguments as in `DeformableAttention.forward`."""
        attended = self.attention(
            tokens + positions, tokens, reference_points, spatial_shapes, padding_mask
        )
        return self.ffn(self.norm(tokens + self.dropout(attended)))


class DeformableEncoder(nn.Module):
    """Stack of deformable encoder layers over the tokens of all levels.

    Source: Deformable DETR (arXiv 2010.04159), section 4.2.

    Args:
        num_layers: of the stack; 0 passes the tokens through.
        embed_dim: C.
        num_heads: of the attention.
        num_levels: feature levels.
        num_points: sampling points per head and level.
        feedforward_dim: hidden channels.
        dropout: probability in [0, 1).
    """

    def __init__(
        self,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(embed_dim, num_heads, num_levels, num_points, feedforward_dim, dropout)
            for _ in range(num_layers)
        )

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Encode.

        Args:
            tokens: (B, S, C), level after level, row-major.
            positions: (B, S, C) positional and level encoding.
            reference_points: (1, S, 2) token centres (x, y) in the padded image's [0, 1].
            spatial_shapes: (height, width) of every level.
            padding_mask: (B, S) bool, True = padding; None if there is none.

        Returns:
            (B, S, C).
        """
        for layer in self.layers:
            tokens = layer(tokens, positions, reference_points, spatial_shapes, padding_mask)
        return tokens


def fold_angles(
    boxes: torch.Tensor, angles: torch.Tensor, unswapped_at_45: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Describe the same rectangles with angles in (-45, 45] degrees, swapping sides.

    Source: ARS-DETR (arXiv 2303.04989): the decoder sees boxes whose angle is small.

    Args:
        boxes: (..., 4) cx, cy, w, h.
        angles: (...) degrees in [-90, 90), counter-clockwise.
        unswapped_at_45: at exactly -45 degrees (+45 clockwise) turn by 90 degrees without swapping
            the sides, as the official program does.

    Returns:
        (boxes, angles) of the same shapes.
    """
    above, below = angles > 45, angles <= -45
    folded = torch.where(above, angles - 90, torch.where(below, angles + 90, angles))

    # A turn by 90 degrees describes the same rectangle only with its sides swapped.
    swap = above | below
    if unswapped_at_45:
        swap = swap & (angles != -45)
    swapped = boxes[..., [0, 1, 3, 2]]
    return torch.where(swap[..., None], swapped, boxes), folded


class DecoderLayer(nn.Module):
    """Self-attention among queries, rotated deformable attention to tokens, feed-forward.

    Source: ARS-DETR (arXiv 2303.04989).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attention = RotatedDeformableAttention(
            embed_dim, num_heads, num_levels, num_points
        )
        self.norm2 = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: torch.Tensor,
        query_positions: torch.Tensor,
        attention_mask: torch.Tensor | None,
        empty_queries: torch.Tensor | None,
        **cross_attention_inputs: object,
    ) -> torch.Tensor:
        """Refine queries (B, Q, C).

        Args:
            queries: (B, Q, C).
            query_positions: (B, Q, C).
            attention_mask: (Q, Q) bool, True = forbidden; None if all may see all.
            empty_queries: (B, Q) bool, True for queries that no other may attend to.
            **cross_attention_inputs: arguments of `RotatedDeformableAttention.forward` after the
                query.

        Returns:
            (B, Q, C).
        """
        q = queries + query_positions
        attended = self.self_attention(
            q,
            q,
            queries,
            attn_mask=attention_mask,
            key_padding_mask=empty_queries,
            need_weights=False,
        )[0]
        queries = self.norm1(queries + self.dropout(attended))
        sampled = self.cross_attention(queries + query_positions, **cross_attention_inputs)
        return self.ffn(self.norm2(queries + self.dropout(sampled)))


class RotatedDeformableDecoder(nn.Module):
    """Decoder with iterative refinement of boxes and fresh angles in every layer.

    Source: ARS-DETR (arXiv 2303.04989); "look forward twice" from DINO (arXiv 2203.03605).

    Args:
        num_layers: L, >= 1.
        embed_dim: C, divisible by 4.
        num_heads: of both attentions.
        num_levels: feature levels.
        num_points: sampling points per head and level.
        feedforward_dim: hidden channels.
        dropout: probability in [0, 1).
        quirks: ``random_sampling_init`` and ``unswapped_at_45``.
    """

    def __init__(
        self,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        *,
        quirks: DetectorQuirks = NO_QUIRKS,
    ) -> None:
        super().__init__()
        layers = [
            DecoderLayer(embed_dim, num_heads, num_levels, num_points, feedforward_dim, dropout)
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.query_position_mlp = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.norm = nn.LayerNorm(embed_dim)
        self.embed_dim = embed_dim
        self.quirks = quirks
        for layer in layers:
            nn.init.xavier_uniform_(layer.self_attention.out_proj.weight)
            layer.cross_attention.reset_sampling(random_weights=quirks.random_sampling_init)

    def query_positions(self, boxes: torch.Tensor) -> torch.Tensor:
        """Encode reference boxes (B, Q, 4) in the order y, x, w, h; the angle is not encoded."""
        coordinates = boxes[..., [1, 0, 2, 3]] * (2 * torch.pi)
        encoding = sine_embedding(coordinates, self.embed_dim // 2)
        return self.query_position_mlp(encoding.to(self.norm.weight.dtype))

    def forward(
        self,
        queries: torch.Tensor,
        boxes: torch.Tensor,
        angles: torch.Tensor,
        memory: torch.Tensor,
        box_to_image: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        heads: DetectionHeads,
        padding_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        empty_queries: torch.Tensor | None = None,
    ) -> tuple[list[Predictions], list[torch.Tensor]]:
        """Decode.

        Args:
            queries: (B, Q, C) content.
            boxes: (B, Q, 4) initial references.
            angles: (B, Q) degrees, initial references.
            memory: (B, S, C) encoder output.
            box_to_image: (B, 2), see `RotatedDeformableAttention.forward`.
            spatial_shapes: (height, width) of every level.
            heads: detection heads, one per layer and one for the encoder.
            padding_mask: (B, S) bool.
            attention_mask: (Q, Q) bool.
            empty_queries: (B, Q) bool.

        Returns:
            Predictions of every layer, and the normalised states (B, Q, C) they were made from.
        """
        predictions, states = [], []
        for index, layer in enumerate(self.layers):
            folded_boxes, folded_angles = fold_angles(
                boxes.detach(), angles, self.quirks.unswapped_at_45
            )
            queries = layer(
                queries,
                self.query_positions(folded_boxes),
                attention_mask,
                empty_queries,
                value=memory,
                boxes=folded_boxes,
                angles=folded_angles,
                box_to_image=box_to_image,
                spatial_shapes=spatial_shapes,
                padding_mask=padding_mask,
            )
            state = self.norm(queries)
            states.append(state)
            # the previous layer's refinement stays attached here: "look forward twice"
            predictions.append(heads.predict(index, state, boxes))
            if index + 1 < len(self.layers):
                boxes, angles = heads.refine(index, queries, boxes.detach())
        return predictions, states
