"""Feed-forward blocks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from rsd2.layers import MLP, FeedForward


def test_mlp_has_relu_between_layers_only():
    mlp = MLP(3, 5, 2, 3)
    x = torch.randn(7, 3)
    first, second, last = mlp.layers
    expected = last(F.relu(second(F.relu(first(x)))))
    assert torch.equal(mlp(x), expected)
    assert (mlp(torch.randn(200, 3)) < 0).any()


def test_mlp_of_one_layer_is_linear():
    mlp = MLP(3, 99, 2, 1)
    x = torch.randn(4, 3)
    assert torch.allclose(mlp(2 * x) - mlp(x), mlp(x) - mlp(0 * x), atol=1e-6)


def test_feed_forward_is_residual_and_normalised():
    block = FeedForward(8, 16, dropout=0.5).eval()
    x = torch.randn(2, 3, 8)
    output = block(x)
    assert torch.allclose(output.mean(-1), torch.zeros(2, 3), atol=1e-6)
    torch.nn.init.zeros_(block.linear2.weight)
    torch.nn.init.zeros_(block.linear2.bias)
    assert torch.allclose(block(x), F.layer_norm(x, (8,)), atol=1e-6)


def test_dropout_acts_in_training_only():
    block = FeedForward(8, 16, dropout=0.5)
    x = torch.randn(2, 3, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
