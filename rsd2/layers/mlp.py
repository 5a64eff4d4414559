"""Small feed-forward modules."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_dim: channels of the input.
        hidden_dim: channels of every hidden layer.
        output_dim: channels of the output.
        num_layers: number of linear layers, >= 1.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        # With one layer there is no hidden width: input and output meet directly.
        dims = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Transformer feed-forward block: linear, ReLU, dropout, linear, dropout, residual, LayerNorm.

    Args:
        embed_dim: channels of input and output.
        hidden_dim: channels of the hidden layer.
        dropout: probability in [0, 1).
    """

    def __init__(self, embed_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., embed_dim) to the same shape."""
        # Post-norm, as in the first transformer: the residual sum is normalised.
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm(x + self.dropout(self.linear2(hidden)))
