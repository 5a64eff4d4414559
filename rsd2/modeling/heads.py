"""Detection heads: class, box and angle of every query, one set per decoder layer.

Shapes: B images, Q queries or tokens, C channels, K classes, A angle bins.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from rsd2.layers import MLP, at_least_float32

from .angle_coder import AngleCoder
from .matcher import Predictions


def inverse_sigmoid(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Logit of probabilities, with both ends cut off.

    Args:
        x: any shape, values in [0, 1]; others are clamped.
        eps: smallest distance from 0 and 1.

    Returns:
        Same shape, finite.
    """
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class DetectionHeads(nn.Module):
    """Class, box and angle heads of every decoder layer and, as the last one, of the encoder.

    Source: ARS-DETR (arXiv 2303.04989); heads are not shared between layers.

    Args:
        num_classes: K.
        num_layers: decoder layers; one more head is made for the encoder's tokens.
        embed_dim: C.
        angle_coder: gives A and turns logits into angles.
        prior_probability: foreground probability at initialisation, (0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        num_layers: int,
        embed_dim: int,
        angle_coder: AngleCoder,
        prior_probability: float = 0.01,
    ) -> None:
        super().__init__()
        count = num_layers + 1
        self.num_layers, self.angle_coder = num_layers, angle_coder
        class_heads = [nn.Linear(embed_dim, num_classes) for _ in range(count)]
        box_heads = [MLP(embed_dim, embed_dim, 4, 3) for _ in range(count)]
        self.class_heads, self.box_heads = nn.ModuleList(class_heads), nn.ModuleList(box_heads)
        self.angle_heads = nn.ModuleList(
            nn.Linear(embed_dim, angle_coder.num_bins) for _ in range(count)
        )

        # At the start every class has the prior probability, and every box stays its reference.
        class_bias = -math.log((1 - prior_probability) / prior_probability)
        for class_head, box_head in zip(class_heads, box_heads):
            nn.init.constant_(class_head.bias, class_bias)
            for parameter in box_head.layers[-1].parameters():
                nn.init.zeros_(parameter)

    @property
    def encoder_index(self) -> int:
        """Index of the heads that score the encoder's tokens."""
        return self.num_layers

    def predict(self, index: int, states: torch.Tensor, references: torch.Tensor) -> Predictions:
        """Predict class, box and angle from the states of one layer.

        Args:
            index: layer, or `encoder_index`.
            states: (B, Q, C).
            references: (B, Q, 4) boxes in [0, 1] that the box head corrects.

        Returns:
            Predictions in float32.
        """
        # The head corrects the reference in logit space, which keeps boxes inside [0, 1].
        logits = at_least_float32(self.box_heads[index](states)) + inverse_sigmoid(
            references, eps=1e-5
        )

        return Predictions(
            at_least_float32(self.class_heads[index](states)),
            logits.sigmoid(),
            at_least_float32(self.angle_heads[index](states)),
        )

    def refine(
        self, index: int, states: torch.Tensor, references: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the references of the next layer.

        Args:
            index: index of the layer that has just been computed.
            states: (B, Q, C), before the output norm.
            references: (B, Q, 4) boxes of this layer.

        Returns:
            boxes (B, Q, 4) with gradient, and angles (B, Q) in degrees, a fresh classification.
        """
        # The official program cuts the references at 1e-3 here, at 1e-5 in `predict`.
        logits = at_least_float32(self.box_heads[index](states)) + inverse_sigmoid(
            references, eps=1e-3
        )

        # The best bin has no gradient.
        with torch.no_grad():
            angles = self.angle_coder.decode(self.angle_heads[index](states))
        return logits.sigmoid(), angles
