"""The plain transformer: one set of weights for sequences and maps, positions for any grid."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from rsd2.layers import sincos_positions_2d
from rsd2.modeling import VisionTransformer


def encoder(**options):
    sizes = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    model = VisionTransformer(**(sizes | options)).eval()
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def tokens_of(model, images):
    """The dense map as a sequence."""
    return model(images)["last_feat"].flatten(2).transpose(1, 2)


def plain_forward(state, images, *, patch, heads, depth):
    """The forward pass written from the papers, on the names that the checkpoints share."""
    x = F.unfold(images, patch, stride=patch).transpose(1, 2)
    weight = state["patch_embed.proj.weight"].flatten(1)
    x = F.linear(x, weight, state["patch_embed.proj.bias"]) + state["pos_embed"]

    def norm(x, name):
        return F.layer_norm(
            x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6
        )

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(depth):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = (part.unflatten(2, (heads, -1)) for part in qkv.chunk(3, dim=2))
        logits = torch.einsum("bihc,bjhc->bhij", q, k) / q.shape[-1] ** 0.5
        attended = torch.einsum("bhij,bjhc->bihc", logits.softmax(dim=-1), v).flatten(2)
        x = x + linear(attended, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")


@pytest.mark.parametrize(
    ("dim", "heads", "millions"), [(192, 3, 5.486), (384, 6, 21.590), (768, 12, 85.647)]
)
def test_parameter_counts_of_i_jepa(dim, heads, millions):
    with torch.device("meta"):
        model = VisionTransformer(patch_size=16, embed_dim=dim, depth=12, num_heads=heads)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_names_are_those_of_the_published_checkpoints():
    names = set(encoder(depth=1, use_relative_positions=True, window_size=4).state_dict())
    block = [f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    linears = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    block += [f"{name}.{kind}" for name in linears for kind in ("weight", "bias")]
    expected = {f"blocks.0.{name}" for name in [*block, "attn.rel_pos_h", "attn.rel_pos_w"]}
    expected |= {f"patch_embed.proj.{kind}" for kind in ("weight", "bias")}
    assert names == expected | {"norm.weight", "norm.bias"}


def test_equals_a_forward_pass_written_independently():
    model, images = encoder(), torch.randn(2, 3, 24, 40)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = dict(model.state_dict(), pos_embed=sincos_positions_2d((3, 5), 32))
    with torch.no_grad():
        expected = plain_forward(state, images, patch=8, heads=4, depth=3)
        assert torch.allclose(model.encode(images), expected, atol=1e-5)
        assert torch.allclose(tokens_of(model, images), expected, atol=1e-5)


@pytest.mark.parametrize("final_norm", [True, False])
def test_dense_map_with_global_attention_equals_the_sequence_of_all_tokens(final_norm):
    model, images = encoder(final_norm=final_norm), torch.randn(2, 3, 32, 48)
    assert torch.allclose(tokens_of(model, images), model.encode(images), atol=1e-5)
    every = torch.arange(24).expand(2, -1)
    assert torch.allclose(model.encode(images, every), model.encode(images), atol=1e-5)


def test_kept_tokens_see_neither_each_other_s_order_nor_what_was_dropped():
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    keep = torch.tensor([[3, 0, 9], [15, 4, 5]])
    encoded = model.encode(images, keep)
    assert encoded.shape == (2, 3, 32)
    assert torch.allclose(model.encode(images, keep.flip(1)), encoded.flip(1), atol=1e-5)
    hidden = torch.ones(2, 16).scatter(1, keep, 0).view(2, 1, 4, 4)
    changed = images + 9 * F.interpolate(hidden, scale_factor=8.0)
    assert torch.allclose(model.encode(changed, keep), encoded, atol=1e-5)
    assert not torch.allclose(model.encode(images)[0, keep[0]], encoded[0], atol=1e-3)


def test_no_tokens_at_all():
    assert encoder().encode(torch.randn(2, 3, 16, 16), torch.zeros(2, 0).long()).shape == (2, 0, 32)


@pytest.mark.parametrize("global_blocks", [[], [1]])
def test_only_global_blocks_let_windows_know_of_each_other(global_blocks):
    model = encoder(
        window_size=2,
        global_blocks=global_blocks,
        use_relative_positions=True,
        relative_position_size=(4, 4),
    )
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 24:, 24:] += 1.0
    same = torch.isclose(model(images)["last_feat"], model(changed)["last_feat"], atol=1e-6)
    assert not same[..., 2:, 2:].all(dim=1).any()
    assert same[..., :2, :2].all() == (not global_blocks)


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (56, 16)])
def test_any_size_and_relative_tables_of_another(size):
    model = encoder(
        window_size=3,
        global_blocks=[2],
        use_relative_positions=True,
        relative_position_size=(4, 4),
        position_grid=(4, 4),
        position_mode="interpolate",
    )
    features = model(torch.randn(1, 3, *size))["last_feat"]
    shape = model.output_shape()["last_feat"]
    assert features.shape == (1, shape.channels, size[0] // shape.stride, size[1] // shape.stride)
    assert features.isfinite().all() and model.size_divisibility == shape.stride == 8


def test_positions_go_on_or_are_spread():
    onward = encoder(position_grid=(4, 4)).positions((6, 8))
    assert torch.equal(onward[0], sincos_positions_2d((6, 8), 32))
    spread = encoder(position_grid=(4, 4), position_mode="interpolate").positions((6, 8))
    assert torch.equal(spread[0], sincos_positions_2d((6, 8), 32, (4 / 6, 4 / 8)))
    assert not torch.allclose(spread, onward, atol=0.1)


def test_learned_positions_start_as_the_fixed_ones_and_are_resized():
    fixed, learned = encoder(), encoder(learned_positions=True, position_grid=(4, 4))
    assert torch.equal(learned.positions((4, 4)), fixed.positions((4, 4)))
    learned.load_state_dict(fixed.state_dict(), strict=False)
    images = torch.randn(1, 3, 32, 32)
    assert torch.allclose(learned.encode(images), fixed.encode(images), atol=1e-6)
    with torch.no_grad():
        learned.pos_embed.copy_(torch.arange(4.0).repeat(4)[None, :, None].expand(-1, -1, 32))
    wide = learned.positions((4, 8)).view(4, 8, 32)
    assert torch.allclose(wide, wide[:1, :, :1].expand(4, 8, 32), atol=1e-5)
    ramp = wide[0, :, 0]  # of the same ends and middle, twice as long
    assert (ramp[1:7].diff() > 0).all() and torch.allclose(ramp.flip(0), 3 - ramp, atol=1e-5)


def test_positions_made_in_inference_mode_can_be_trained_with():
    model = encoder(depth=1)
    images = torch.randn(1, 3, 72, 8)  # a grid that no other test has, so that it is made here
    with torch.inference_mode():
        model.encode(images)
    model.encode(images).sum().backward()


def test_computing_activations_again_changes_no_gradient():
    images, gradients = torch.randn(2, 3, 32, 32), []
    for again in (False, True):
        torch.manual_seed(3)
        model = encoder(checkpoint_activations=again, drop_path_rate=0.5, window_size=2).train()
        torch.manual_seed(4)
        model(images)["last_feat"].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients))


@pytest.mark.parametrize(("freeze_at", "blocks"), [(1, 0), (3, 2), (4, 3)])
def test_frozen_parts_come_first_and_drop_nothing(freeze_at, blocks):
    model = encoder(freeze_at=freeze_at, drop_path_rate=0.5)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    parts = {"patch_embed", *(f"blocks.{i}" for i in range(blocks))}
    parts |= {"norm"} if freeze_at == 4 else set()
    found = {n.split(".")[0] if "blocks" not in n else n[: n.index(".", 7)] for n in frozen}
    assert found == parts
    assert all(block.drop_path.p == 0 for block in model.blocks[:blocks])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_blocks": [3]}, "global_blocks must be in 0 to 2"),
        ({"freeze_at": 5}, "freeze_at must be in 0 to 4, got 5"),
        ({"position_mode": "nearest"}, "position_mode must be one of .* got 'nearest'"),
        ({"position_mode": "interpolate"}, "need a position_grid"),
        ({"learned_positions": True}, "need a position_grid"),
        ({"use_relative_positions": True}, "need relative_position_size"),
        ({"embed_dim": 30}, "dim 30 is not divisible by num_heads 4"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_images_that_do_not_divide_into_patches_are_refused():
    for run in (encoder().encode, encoder()):
        with pytest.raises(ValueError, match="30 x 32 pixels .* patches of 8"):
            run(torch.zeros(1, 3, 30, 32))


def test_timm_is_not_needed():
    code = "import sys; sys.modules['timm'] = None\n" + (
        "from rsd2.modeling import SimplePyramid, VisionTransformer\n"
        "net = VisionTransformer(embed_dim=8, num_heads=2, depth=1, drop_path_rate=0.1)\n"
        "SimplePyramid(net, out_channels=8)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
