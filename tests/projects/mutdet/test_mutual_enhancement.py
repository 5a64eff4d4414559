"""The mutual enhancement module: published values, masks, empty images, memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rsd2.projects.mutdet.mutual_enhancement import Attention, MutualEnhancement
from rsd2.projects.mutdet.quirks import MutDetQuirks

C = 32


def small(**options):
    torch.manual_seed(0)
    return MutualEnhancement(C, options.pop("embedding_dim", C), 2, 4, 64, **options)


def objects(*counts, dim=C):
    return [F.normalize(torch.randn(n, dim), dim=1) for n in counts]


def usable(batch, tokens):
    return torch.zeros(batch, tokens, dtype=torch.bool)


def fill_by_rule(module):
    """Weights of the published check values: ((37 i + 11) mod 101 - 50) / 1000, norms + 1."""
    for name, parameter in module.named_parameters():
        index = torch.arange(parameter.numel())
        value = ((37 * index + 11) % 101 - 50).double() / 1000
        if "norm" in name and name.endswith("weight"):
            value = value + 1
        parameter.data.copy_(value.view_as(parameter))


@pytest.mark.parametrize(
    ("depth", "first_object", "first_token", "sums"),
    [
        (
            1,
            (1.173449, 0.665646, -0.302746, -0.388052, 1.427760),
            (0.980292, 0.811421, 0.956372, 0.841943, 1.012061),
            None,
        ),
        (
            3,
            (1.652656, 0.735305, -0.894410, -0.774242, 1.350244),
            (1.015631, 1.023132, 0.837366, 0.672856, 0.701311),
            (7.544305, 901.049250, 9.007642, 2150.593023),
        ),
    ],
)
def test_values_of_the_official_program(depth, first_object, first_token, sums):
    module = MutualEnhancement(depth=depth).double()
    fill_by_rule(module.layers)
    o = torch.sin(0.1 * torch.arange(4 * 256).double()).view(1, 4, 256)
    f = torch.sin(0.1 * torch.arange(10 * 256).double() + 0.5).view(1, 10, 256)
    with torch.no_grad():
        o, f = module.enhance(o, f)
    assert o[0, 0, :5].tolist() == pytest.approx(first_object, abs=1e-6)
    assert f[0, 0, :5].tolist() == pytest.approx(first_token, abs=1e-6)
    if sums:
        found = [x.item() for x in (o.sum(), o.abs().sum(), f.sum(), f.abs().sum())]
        # sums of a thousand and more values that are known to six digits
        assert found == pytest.approx(sums, abs=2e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_is_the_attention_of_the_textbook(masked):
    attention = Attention(C, 4).double()
    queries, keys = torch.randn(2, 5, C).double(), torch.randn(2, 7, C).double()
    is_key = torch.rand(2, 7) > 0.4 if masked else torch.ones(2, 7, dtype=torch.bool)
    is_key[:, 0] = True
    heads = []
    for head in torch.arange(C).chunk(4):
        q, k, v = (
            layer(x)[..., head]
            for layer, x in (
                (attention.q_proj, queries),
                (attention.k_proj, keys),
                (attention.v_proj, keys),
            )
        )
        scores = (q @ k.transpose(1, 2)) / (C // 4) ** 0.5
        weights = scores.masked_fill(~is_key[:, None], -1e9).softmax(-1)
        heads.append(weights @ v)
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    found = attention(queries, keys, is_key if masked else None)
    assert torch.allclose(found, expected, atol=1e-12)


def test_gradient_is_the_derivative():
    module = small().double()
    memory = torch.randn(1, 3, C).double().requires_grad_()
    embeddings = objects(2)[0].double().requires_grad_()

    def run(memory, embeddings):
        enhanced, tokens = module(memory, [embeddings], None, usable(1, 3))
        return enhanced[0], tokens

    assert torch.autograd.gradcheck(run, (memory, embeddings), fast_mode=True)


def test_order_of_objects_and_of_images_does_not_matter():
    module, (a, b) = small(), objects(4, 3)
    memory = torch.randn(2, 6, C)
    order = torch.tensor([2, 0, 3, 1])
    (x, y), tokens = module(memory, [a, b], None, usable(2, 6))
    (z, w), turned = module(memory.flip(0), [b, a[order]], None, usable(2, 6))
    assert torch.allclose(w, x[order], atol=1e-5)
    assert torch.allclose(z, y, atol=1e-5)
    assert torch.allclose(turned, tokens.flip(0), atol=1e-5)


def test_padding_is_not_attended_to_but_the_official_program_does():
    padding = usable(1, 6)
    padding[:, 4:] = True
    memory, (given,) = torch.randn(1, 6, C), objects(3)
    for official in (False, True):
        module = small(quirks=MutDetQuirks(zeroed_rim=official))
        (with_padding,), tokens = module(memory, [given], padding, padding)
        (without,), cut = module(memory[:, :4], [given], None, usable(1, 4))
        changed = memory.clone()
        changed[:, 4:] = 99.0
        (same,), _ = module(changed, [given], padding, padding)
        assert torch.equal(with_padding, same)
        assert torch.allclose(with_padding, without, atol=1e-5) != official
        assert torch.allclose(tokens[:, :4], cut, atol=1e-5) != official


def test_official_masking_zeroes_the_rim_too():
    rim = usable(1, 5)
    rim[:, 0] = True
    memory, (given,) = torch.randn(1, 5, C), objects(2)
    zeroed = memory.masked_fill(rim[..., None], 0.0)
    ours, theirs = small(), small(quirks=MutDetQuirks(zeroed_rim=True))
    assert torch.equal(theirs(memory, [given], None, rim)[1], ours(zeroed, [given], None, rim)[1])
    assert not torch.equal(ours(memory, [given], None, rim)[1], ours(zeroed, [given], None, rim)[1])


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_image_without_objects_is_finite_and_keeps_every_parameter_attached(counts):
    module = small(embedding_dim=20)
    memory = torch.randn(2, 6, C)
    enhanced, tokens = module(memory, objects(*counts, dim=20), None, usable(2, 6))
    assert [tuple(x.shape) for x in enhanced] == [(n, C) for n in counts]
    assert torch.isfinite(tokens).all()
    (tokens.sum() + sum(x.sum() for x in enhanced)).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_without_token_update_no_part_is_left_idle():
    module = small(update_tokens=False)
    enhanced, tokens = module(torch.randn(1, 6, C), objects(3), None, usable(1, 6))
    assert tokens is None
    enhanced[0].square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    full = small()(torch.randn(1, 6, C), objects(3), None, usable(1, 6))
    assert full[1].shape == (1, 6, C)


def test_recomputing_gives_the_same_gradient_with_less_memory():
    memory, given = torch.randn(2, 500, C), objects(5, 9)
    gradients, saved = [], []
    for checkpoint in (False, True):
        module = small(checkpoint=checkpoint)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            enhanced, tokens = module(memory, given, None, usable(2, 500))
        (tokens.square().sum() + sum(x.square().sum() for x in enhanced)).backward()
        gradients.append([p.grad for p in module.parameters()])
        saved.append(sum(sizes))
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*gradients))
    assert saved[1] < 0.5 * saved[0]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_map_of_tokens_times_objects_is_kept(dtype, padded):
    num_tokens, num_objects = 1000, 300
    module = small().to(dtype)
    mask = usable(1, num_tokens)
    mask[:, -10:] = True
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.untyped_storage().size() // t.element_size()) or t, lambda t: t
    ):
        memory = torch.randn(1, num_tokens, C, dtype=dtype)
        given = [objects(num_objects)[0].to(dtype)]
        module(memory, given, mask if padded else None, mask)
    assert max(sizes) < num_tokens * num_objects / 2
    assert max(sizes) >= num_tokens * C


@pytest.mark.parametrize(
    ("zero_init", "length", "low", "high"),
    [(False, 1, 0.94, 0.99), (False, 16, 0.9, 0.97), (True, 1, 0.3, 0.45)],
    ids=["official", "as long as tokens", "zero"],
)
def test_objects_of_an_image_are_nearly_one_at_the_official_start(zero_init, length, low, high):
    """Each layer adds their mean to all; their length beside that of the tokens matters little.

    Published widths and depth; as in a real image, the objects have a cosine of 0.27.
    """
    torch.manual_seed(0)
    module = MutualEnhancement(zero_init=zero_init)
    embeddings = F.normalize(torch.randn(24, 256) + 0.6 * torch.randn(1, 256), dim=1)
    memory = torch.randn(1, 400, 256)
    with torch.no_grad():
        found = module(memory, [length * embeddings], None, usable(1, 400))[0][0]

    found = F.normalize(found, dim=1)
    cosine = ((found @ found.T).sum() - 24) / (24 * 23)
    assert low < cosine < high


def test_wrong_arguments():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        MutualEnhancement(depth=0)
    with pytest.raises(ValueError, match="embed_dim 30 is not divisible by num_heads 4"):
        Attention(30, 4)
