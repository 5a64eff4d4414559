"""Converted transformers compute what their checkpoints do, and every key is accounted for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rsd2.commands.convert_checkpoint import rules_for
from rsd2.layers import sincos_positions_2d
from rsd2.modeling import SimplePyramid, VisionTransformer
from rsd2.weights.conversion import convert_state_dict
from rsd2.weights.conversion_vit import not_fixed_positions, vit_prefix, without_class_token

DIM, HEADS, DEPTH, PATCH = 32, 4, 2, 8


def random_encoder(seed=0):
    """Tensors of an encoder under the names that all the sources share."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"patch_embed.proj.weight": (DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": (DIM,)}
    for i in range(DEPTH):
        linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
        for name, (out, into) in linears.items():
            shapes[f"blocks.{i}.{name}.weight"] = (out * DIM, into * DIM)
            shapes[f"blocks.{i}.{name}.bias"] = (out * DIM,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.{kind}": (DIM,) for kind in ("weight", "bias")}
    shapes |= {f"norm.{kind}": (DIM,) for kind in ("weight", "bias")}
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def plain_forward(state, positions, images, final_norm=True):
    """The forward pass of the papers, from the checkpoint's own tensors."""
    x = F.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH
    )
    x = x.flatten(2).transpose(1, 2) + positions

    def layer(x, name, function):
        return function(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, weight, bias):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-6).sqrt() * weight + bias

    for i in range(DEPTH):
        qkv = layer(layer(x, f"blocks.{i}.norm1", norm), f"blocks.{i}.attn.qkv", F.linear)
        heads = []
        for head in range(HEADS):
            size = DIM // HEADS
            q, k, v = (qkv[..., j * DIM + head * size :][..., :size] for j in range(3))
            heads.append((q @ k.transpose(1, 2) / size**0.5).softmax(-1) @ v)
        x = x + layer(torch.cat(heads, -1), f"blocks.{i}.attn.proj", F.linear)
        hidden = layer(layer(x, f"blocks.{i}.norm2", norm), f"blocks.{i}.mlp.fc1", F.linear)
        x = x + layer(F.gelu(hidden), f"blocks.{i}.mlp.fc2", F.linear)
    return layer(x, "norm", norm) if final_norm else x


def fixed_table(side=4, class_token=False):
    table = sincos_positions_2d((side, side), DIM)[None]
    return torch.cat([torch.zeros(1, 1, DIM), table], 1) if class_token else table


def ours(**options):
    return VisionTransformer(
        patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, **options
    ).eval()


class Detector(torch.nn.Module):
    """A backbone under the name that detectors have it by, and a head."""

    def __init__(self, **options):
        super().__init__()
        self.backbone = SimplePyramid(ours(**options), out_channels=8, scale_factors=(1.0, 0.5))
        self.head = torch.nn.Linear(2, 2)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def checkpoint(source, encoder):
    """A file of the source's layout; the other encoder of I-JEPA has other weights."""
    other = random_encoder(seed=9)
    if source.startswith("ijepa"):
        used, unused = ("target_encoder.", "encoder.")[:: 1 if source == "ijepa" else -1]
        state = prefixed({**encoder, "pos_embed": fixed_table()}, used)
        state |= prefixed({**other, "pos_embed": fixed_table()}, unused)
        return state | {
            "predictor.mask_token": torch.zeros(1, 1, 8),
            "predictor.predictor_pos_embed": torch.zeros(1, 16, 8),
            "predictor.predictor_blocks.0.norm1.weight": torch.zeros(8),
        }
    state = {**encoder, "pos_embed": fixed_table(class_token=True)}
    state["cls_token"] = torch.zeros(1, 1, DIM)
    if source == "mae":
        return state | {
            "mask_token": torch.zeros(1, 1, 8),
            "decoder_pos_embed": torch.zeros(1, 17, 8),
            "decoder_embed.weight": torch.zeros(8, DIM),
            "decoder_blocks.0.norm1.weight": torch.zeros(8),
        }
    return state | {"head.weight": torch.zeros(5, DIM), "head.bias": torch.zeros(5)}


@pytest.mark.parametrize("source", ["ijepa", "ijepa-context", "mae", "timm-vit"])
def test_features_equal_a_plain_forward_pass(source):
    encoder, model = random_encoder(), Detector()
    state = checkpoint(source, encoder)
    own = model.state_dict()
    converted, report = convert_state_dict(state, rules_for(source, state, own), own)
    assert not report.unknown and not report.mismatched
    assert len(report.converted) == len(encoder) and len(report.dropped) == len(state) - len(
        encoder
    )
    rest = {key for key in own if not key.startswith("backbone.net.")}
    assert set(report.missing) == rest
    model.load_state_dict(converted, strict=False)
    for size in ((32, 32), (48, 24)):  # its own grid, and one that it never saw
        images = torch.randn(2, 3, *size)
        positions = sincos_positions_2d((size[0] // PATCH, size[1] // PATCH), DIM)
        with torch.no_grad():
            expected = plain_forward(encoder, positions, images)
            found = model.backbone.net.encode(images)
            dense = model.backbone.net(images)["last_feat"].flatten(2).transpose(1, 2)
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.allclose(dense, expected, atol=1e-5)


def test_learned_positions_are_kept_and_never_dropped_in_silence():
    encoder, learned = random_encoder(), torch.randn(1, 17, DIM)
    state = {**encoder, "pos_embed": learned, "cls_token": torch.zeros(1, 1, DIM)}
    fixed = Detector().state_dict()
    _, report = convert_state_dict(state, rules_for("timm-vit", state, fixed), fixed)
    assert "(1, 16, 32) is not the fixed table" in report.mismatched["pos_embed"]
    model = Detector(learned_positions=True, position_grid=(4, 4))
    own = model.state_dict()
    converted, report = convert_state_dict(state, rules_for("timm-vit", state, own), own)
    assert not report.mismatched and not report.unknown
    model.load_state_dict(converted, strict=False)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = plain_forward(encoder, learned[:, 1:], images)
        assert torch.allclose(model.backbone.net.encode(images), expected, atol=1e-5)


def test_vitdet_keeps_relative_positions_and_the_levels_that_the_model_has():
    options = {"use_relative_positions": True, "relative_position_size": (4, 4)}
    model = Detector(final_norm=False, learned_positions=True, position_grid=(4, 4), **options)
    own = model.state_dict()
    state = {key: torch.randn_like(value) for key, value in own.items() if "backbone" in key}
    state["backbone.net.pos_embed"] = torch.randn(1, 17, DIM)
    more = ("backbone.simfp_2.0.weight", "roi_heads.box_head.fc1.bias", "proposal_generator.a.b")
    state |= {key: torch.zeros(1) for key in more}
    converted, report = convert_state_dict(state, rules_for("vitdet", state, own), own)
    assert set(report.dropped) == set(more) and not report.mismatched and not report.unknown
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert torch.equal(converted["backbone.net.pos_embed"], state["backbone.net.pos_embed"][:, 1:])
    for key in ("backbone.net.blocks.0.attn.rel_pos_h", "backbone.simfp_3.0.weight"):
        assert torch.equal(converted[key], state[key])


def test_vitdet_into_a_model_with_a_final_norm_leaves_it_missing():
    own = Detector().state_dict()
    state = {key: value for key, value in own.items() if ".norm.bias" not in key}
    state.pop("backbone.net.norm.weight")
    _, report = convert_state_dict(state, rules_for("vitdet", state, own), own)
    assert {"backbone.net.norm.weight", "backbone.net.norm.bias"} <= set(report.missing)


def test_what_the_encoder_does_not_have_is_unknown():
    state = {**random_encoder(), "blocks.0.ls1.gamma": torch.ones(DIM), "reg_token": torch.ones(1)}
    _, report = convert_state_dict(state, rules_for("timm-vit", state))
    assert set(report.unknown) == {"blocks.0.ls1.gamma", "reg_token"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fixed_positions_are_known_in_every_precision(dtype):
    for class_token in (False, True):
        assert not_fixed_positions(fixed_table(14, class_token).to(dtype)) is None
    moved = fixed_table(14).roll(1, dims=1)
    assert "learned_positions=true" in not_fixed_positions(moved.to(dtype))
    # the order of MAE's and I-JEPA's table; with y before x it would be another one
    swapped = torch.cat(fixed_table(14).chunk(2, dim=2)[::-1], dim=2)
    assert not_fixed_positions(swapped) is not None
    assert not_fixed_positions(torch.zeros(1, 7, DIM)) is not None


def test_class_token_is_only_taken_off_if_a_square_is_left():
    assert without_class_token(torch.zeros(1, 197, 4)).shape == (1, 196, 4)
    assert without_class_token(torch.zeros(1, 196, 4)).shape == (1, 196, 4)
    assert without_class_token(torch.zeros(1, 199, 4)).shape == (1, 199, 4)


def test_where_a_model_has_its_transformer():
    assert vit_prefix(None) == "backbone.net."
    for prefix in ("backbone.net.", "backbone.", "context_encoder."):
        assert vit_prefix([prefix + "patch_embed.proj.weight", "head.weight"]) == prefix
