"""First stage: every token of the encoder proposes a box, the best become reference boxes.

Shapes: B images, S tokens of all levels together, Q chosen tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rsd2.layers import at_least_float32

from .heads import DetectionHeads
from .matcher import Predictions
from .outputs import Proposals

# Logit of a proposal that must not be used: sigmoid(1e4) = 1.
INVALID_LOGIT = 1e4


def token_centers(spatial_shapes: Sequence[tuple[int, int]], device: torch.device) -> torch.Tensor:
    """Return the centres of all tokens in the padded image.

    Args:
        spatial_shapes: (height, width) of every level.
        device: device of the result.

    Returns:
        (S, 2) x, y in (0, 1), level after level, row-major.
    """
    centers = []
    for height, width in spatial_shapes:
        # Half a token from its edge, so that the levels' centres cover the same area.
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centers.append(torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1))
    return torch.cat(centers)


class TwoStageProposals(nn.Module):
    """Score and refine one grid proposal per token.

    Source: Deformable DETR (arXiv 2010.04159), appendix A.4; "mixed selection" of DINO
    (arXiv 2203.03605): content of the queries is learnt, only the boxes come from the tokens.

    Args:
        embed_dim: C.
        num_queries: Q; all tokens are taken where there are fewer.
        base_size: side of a proposal at level 0 in normalised box coordinates; doubled per level.
        border: proposals whose centre lies closer to the image border than this share of its
            extent are not used, nor those longer than 1 - border.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_queries: int = 300,
        base_size: float = 0.05,
        border: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_queries, self.base_size, self.border = num_queries, base_size, border
        self.enc_output = nn.Linear(embed_dim, embed_dim)
        self.enc_output_norm = nn.LayerNorm(embed_dim)
        nn.init.xavier_uniform_(self.enc_output.weight)

    def grid(
        self,
        spatial_shapes: Sequence[tuple[int, int]],
        box_to_image: torch.Tensor,
        valid_extent: torch.Tensor,
        padding_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the grid proposals of all tokens.

        Args:
            spatial_shapes: (height, width) of every level.
            box_to_image: (B, 2) factors from box coordinates to the padded image's [0, 1].
            valid_extent: (B, 2) share of the padded image (x, y) that is image.
            padding_mask: (B, S) bool, True = padding.

        Returns:
            logits (B, S, 4) of cx, cy, w, h, `INVALID_LOGIT` where the proposal is not used, and
            usable (B, S) bool.
        """
        device = box_to_image.device
        centers = token_centers(spatial_shapes, device)[None]
        tokens_per_level = [h * w for h, w in spatial_shapes]
        # Sides double with the level, as the strides do.
        sizes = torch.cat(
            [
                torch.full((n,), self.base_size * 2.0**level, device=device)
                for level, n in enumerate(tokens_per_level)
            ]
        )

        # The border is measured in the image, not in its padding.
        inside = centers / valid_extent[:, None]
        usable = ((inside > self.border) & (inside < 1 - self.border)).all(-1)
        usable = usable & (sizes > self.border) & (sizes < 1 - self.border)
        if padding_mask is not None:
            usable = usable & ~padding_mask

        boxes = torch.cat(
            [
                centers / box_to_image[:, None],
                sizes[None, :, None].expand(len(box_to_image), -1, 2),
            ],
            dim=-1,
        )
        # The clamp keeps unusable boxes finite until they are masked.
        logits = torch.log(boxes / (1 - boxes).clamp(min=1e-6))
        return logits.masked_fill(~usable[..., None], INVALID_LOGIT), usable

    @staticmethod
    def predict(
        tokens: torch.Tensor, grid_logits: torch.Tensor, heads: DetectionHeads
    ) -> Predictions:
        """Predict class, box and angle of every token.

        Args:
            tokens: (B, S, C).
            grid_logits: (B, S, 4), see `grid`; the box head corrects them.
            heads: the last one scores tokens.

        Returns:
            Predictions of all tokens.
        """
        index = heads.encoder_index

        box_logits = at_least_float32(heads.box_heads[index](tokens)) + grid_logits
        return Predictions(
            at_least_float32(heads.class_heads[index](tokens)),
            box_logits.sigmoid(),
            at_least_float32(heads.angle_heads[index](tokens)),
        )

    @torch.no_grad()
    def select(
        self,
        predictions: Predictions,
        scores: torch.Tensor,
        usable: torch.Tensor,
        heads: DetectionHeads,
    ) -> Proposals:
        """Make references of the tokens with the best scores.

        Args:
            predictions: predictions of all tokens.
            scores: (B, S), any range.
            usable: (B, S) bool. A token that is not has no box to offer; it fills up where there
                are too few others.
            heads: heads that made the predictions.

        Returns:
            The predictions, and the references of the best Q, detached.
        """
        scores = scores.masked_fill(~usable, -float("inf"))
        best = scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices

        boxes = predictions.boxes.gather(1, best[..., None].expand(-1, -1, 4))
        angles = heads.angle_coder.decode(predictions.angle_logits).gather(1, best)
        return Proposals(predictions, boxes, angles)

    def forward(
        self,
        memory: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        box_to_image: torch.Tensor,
        valid_extent: torch.Tensor,
        padding_mask: torch.Tensor | None,
        heads: DetectionHeads,
    ) -> Proposals:
        """Predict from every token and select by objectness, the logit of class 0.

        Args:
            memory: (B, S, C) encoder output.
            spatial_shapes: (height, width) of every level.
            box_to_image: (B, 2), see `grid`.
            valid_extent: (B, 2), see `grid`.
            padding_mask: (B, S) bool.
            heads: the last one scores tokens.

        Returns:
            Predictions of all tokens, and the references of the best Q.
        """
        logits, usable = self.grid(spatial_shapes, box_to_image, valid_extent, padding_mask)

        # An unusable token has no position, so its content must not count either.
        tokens = self.enc_output_norm(self.enc_output(memory.masked_fill(~usable[..., None], 0.0)))
        predictions = self.predict(tokens, logits, heads)
        return self.select(predictions, predictions.class_logits[..., 0], usable, heads)
