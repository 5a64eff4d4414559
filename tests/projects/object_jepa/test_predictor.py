"""The predictor: its size, what it depends on, and the order of what it gives back."""

import pytest
import torch

from rsd2.modeling import VisionTransformer
from rsd2.projects.object_jepa.predictor import Predictor

GRID = (4, 5)


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    keep = torch.stack([torch.randperm(20, generator=generator)[:6] for _ in range(2)])
    predicted = torch.stack([torch.randperm(20, generator=generator)[:7] for _ in range(2)])
    return torch.randn(2, 6, 24, generator=generator), keep, predicted


def make(**options):
    model = Predictor(24, embed_dim=16, depth=2, num_heads=2, **options)
    for parameter in model.parameters():  # at the start, attention is next to nothing
        if parameter.dim() > 1:
            parameter.data.mul_(10)
    return model


@pytest.mark.parametrize(
    ("width", "heads", "encoder", "predictor"),
    [(192, 3, 5.486, 10.796), (384, 6, 21.590, 10.944), (768, 12, 85.647, 11.239)],
)
def test_sizes_are_those_of_the_method(width, heads, encoder, predictor):
    """I-JEPA's ViT-T, S, B; predictor of 384, depth 6."""
    with torch.device("meta"):
        models = VisionTransformer(embed_dim=width, num_heads=heads), Predictor(width)
    millions = [sum(p.numel() for p in model.parameters()) / 1e6 for model in models]
    assert [round(value, 3) for value in millions] == [encoder, predictor]


@torch.no_grad()
def test_context_is_a_set_and_predictions_follow_their_places(tokens):
    context, keep, predicted = tokens
    model = make()
    result = model(context, keep, predicted, GRID)
    assert result.shape == (2, 7, 24)
    order, other = torch.randperm(6), torch.randperm(7)
    again = model(context[:, order], keep[:, order], predicted[:, other], GRID)
    assert torch.allclose(again, result[:, other], atol=1e-5)
    moved = model(context, keep.flip(1), predicted, GRID)
    assert not torch.allclose(moved, result, atol=1e-4), "where a token lies matters"


@torch.no_grad()
def test_without_mask_tokens_the_own_tokens_are_read(tokens):
    _, _, predicted = tokens
    context = torch.randn(2, 20, 24)
    model = make(mask_tokens=False, out_dim=5)
    assert model.mask_token is None
    result = model(context, None, predicted, GRID)
    everywhere = model(context, None, torch.arange(20).expand(2, -1), GRID)
    assert result.shape == (2, 7, 5)
    index = predicted[..., None].expand(-1, -1, 5)
    assert torch.allclose(result, everywhere.gather(1, index), atol=1e-6)


@torch.no_grad()
def test_no_keep_is_all_places_in_order(tokens):
    _, _, predicted = tokens
    context = torch.randn(2, 20, 24)
    model = make()
    named = model(context, torch.arange(20).expand(2, -1), predicted, GRID)
    assert torch.allclose(model(context, None, predicted, GRID), named, atol=1e-6)
    # the grid is no side issue: the same indices elsewhere
    assert not torch.allclose(model(context, None, predicted, (5, 4)), named, atol=1e-4)
