"""Mutual enhancement: object embeddings and image tokens attend to each other.

Shapes: B images, S tokens of all levels together, N objects of one image, C channels, D channels
of the embeddings read from disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from rsd2.layers import FeedForward

from .quirks import NO_QUIRKS, MutDetQuirks


class Attention(nn.Module):
    """Multi-head attention without positions or dropout, in the fused form of PyTorch.

    Source: "Attention Is All You Need", section 3.2.2. No map of queries x keys is kept.

    Args:
        embed_dim: C, divisible by ``num_heads``.
        num_heads: number of heads.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(embed_dim, embed_dim) for _ in range(4)
        )

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, is_key: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Let the queries attend to the keys.

        Args:
            queries: (B, Q, C).
            keys: (B, K, C), which are the values too; K = 0 is attention to nothing and gives zero.
            is_key: (B, K) bool, False for tokens to ignore, at least one True for
                every image; None if all are keys.

        Returns:
            (B, Q, C), without the residual.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, x in (
                (self.q_proj, queries),
                (self.k_proj, keys),
                (self.v_proj, keys),
            )
        )

        if q.shape[2] == 0 or k.shape[2] == 0:
            # Written out, attention to nothing is zero and attached to the parameters, which the
            # fused kernels do not promise.
            attended = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            mask = None if is_key is None else is_key[:, None, None]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        return self.out_proj(attended.transpose(1, 2).flatten(2))


class MutualEnhancementLayer(nn.Module):
    """Objects attend to each other and to the tokens, then the tokens to the objects; post-norm.

    Source: MutDet (ECCV 2024), mutual enhancement module; the order of the official program.

    Args:
        embed_dim: C, channels of objects and tokens.
        num_heads: number of heads of the three attentions.
        feedforward_dim: hidden channels of the objects' feed-forward block.
        update_tokens: whether to build the part that changes the tokens.
        detach_objects: whether the tokens attend to the objects without a gradient to them.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        feedforward_dim: int,
        update_tokens: bool = True,
        detach_objects: bool = False,
    ) -> None:
        super().__init__()
        self.self_attention = Attention(embed_dim, num_heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.object_to_image = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim, feedforward_dim, dropout=0.0)
        self.update_tokens, self.detach_objects = update_tokens, detach_objects
        if update_tokens:
            self.image_to_object = Attention(embed_dim, num_heads)
            self.norm3 = nn.LayerNorm(embed_dim)

    def forward(
        self, objects: torch.Tensor, tokens: torch.Tensor, is_key: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Enhance objects and tokens.

        Args:
            objects: (B, N, C).
            tokens: (B, S, C).
            is_key: (B, S) bool, tokens that objects may attend to; None for all.

        Returns:
            Objects and tokens of the same shapes; the tokens are unchanged without
            ``update_tokens``.
        """
        objects = self.norm1(objects + self.self_attention(objects, objects))
        objects = self.norm2(objects + self.object_to_image(objects, tokens, is_key))
        objects = self.ffn(objects)

        if self.update_tokens:
            # With the updated objects, as in the official program.
            seen = objects.detach() if self.detach_objects else objects
            tokens = self.norm3(tokens + self.image_to_object(tokens, seen))
        return objects, tokens


class MutualEnhancement(nn.Module):
    """Enhance the object embeddings by the encoder's tokens and the tokens by the embeddings.

    Source: MutDet (ECCV 2024), mutual enhancement module, after the last encoder layer. Images
    are enhanced one by one, because their numbers of objects differ.

    Args:
        embed_dim: C, channels of the tokens.
        embedding_dim: D, channels of the embeddings; embeddings of another width than C go through
            a linear layer first, which the official program, whose widths are equal, does not have.
        depth: number of layers, >= 1.
        num_heads: number of heads of every attention.
        feedforward_dim: hidden channels of the objects' feed-forward blocks.
        update_tokens: whether to return enhanced tokens; otherwise the last layer lacks the part
            for them.
        checkpoint: whether to recompute every layer in the backward pass: less memory, more time.
        zero_init: whether the attentions to objects and to tokens add nothing to the objects at
            first. With the official start every layer adds much the same mean of the image to all
            of its objects, which are nearly one vector after three layers.
        detach_objects: whether the tokens attend to the objects without a gradient to them, so that
            the detection losses cannot make the objects of an image alike; the alignment alone
            trains them then.
        quirks: only ``zeroed_rim`` is read.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        embedding_dim: int = 256,
        depth: int = 3,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        *,
        update_tokens: bool = True,
        checkpoint: bool = False,
        zero_init: bool = False,
        detach_objects: bool = False,
        quirks: MutDetQuirks = NO_QUIRKS,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")

        self.embedding_projection = None
        if embedding_dim != embed_dim:
            self.embedding_projection = nn.Linear(embedding_dim, embed_dim)

        self.token_projection = nn.Linear(embed_dim, embed_dim)
        self.token_norm = nn.LayerNorm(embed_dim)
        self.layers = nn.ModuleList(
            MutualEnhancementLayer(
                embed_dim,
                num_heads,
                feedforward_dim,
                update_tokens or index + 1 < depth,
                detach_objects,
            )
            for index in range(depth)
        )
        self.update_tokens, self.detach_objects = update_tokens, detach_objects
        self.checkpoint, self.quirks = checkpoint, quirks

        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

        if zero_init:
            layers = [one for one in self.modules() if isinstance(one, MutualEnhancementLayer)]
            for layer in layers:
                for attention in (layer.self_attention, layer.object_to_image):
                    nn.init.zeros_(attention.out_proj.weight)
                    nn.init.zeros_(attention.out_proj.bias)

    def enhance(
        self, objects: torch.Tensor, tokens: torch.Tensor, is_key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the layers.

        Args:
            objects: (B, N, C).
            tokens: (B, S, C).
            is_key: (B, S) bool, tokens that objects may attend to; None for all.

        Returns:
            Enhanced objects and tokens, same shapes.
        """
        for layer in self.layers:
            if self.checkpoint and torch.is_grad_enabled():
                objects, tokens = recompute(layer, objects, tokens, is_key, use_reentrant=False)
            else:
                objects, tokens = layer(objects, tokens, is_key)
        return objects, tokens

    def forward(
        self,
        memory: torch.Tensor,
        embeddings: Sequence[torch.Tensor],
        padding_mask: torch.Tensor | None,
        unusable: torch.Tensor,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Enhance the objects and tokens of a batch.

        Args:
            memory: (B, S, C) encoder output.
            embeddings: B tensors (N_i, D), unit length; N_i may be 0.
            padding_mask: (B, S) bool, True = padding; None if there is none.
            unusable: (B, S) bool, tokens without a usable proposal, for ``zeroed_rim``.

        Returns:
            B tensors (N_i, C), not of unit length, and the tokens (B, S, C), or None without
            ``update_tokens``.
        """
        hidden = unusable if self.quirks.zeroed_rim else padding_mask
        if hidden is not None:
            # The bias of the linear layer fills these tokens again; the mask below keeps objects
            # off them.
            memory = memory.masked_fill(hidden[..., None], 0.0)
        tokens = self.token_norm(self.token_projection(memory))

        is_key = None if self.quirks.zeroed_rim or padding_mask is None else ~padding_mask
        # Image by image, because the numbers of objects differ.
        all_objects, all_tokens = [], []
        for i, objects in enumerate(embeddings):
            if self.embedding_projection is not None:
                objects = self.embedding_projection(objects)
            key = None if is_key is None else is_key[i : i + 1]
            enhanced, changed = self.enhance(objects[None], tokens[i : i + 1], key)
            all_objects.append(enhanced[0])
            all_tokens.append(changed)

        return all_objects, torch.cat(all_tokens) if self.update_tokens else None
