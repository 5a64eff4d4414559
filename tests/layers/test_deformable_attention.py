"""Deformable attention: where it samples, what padding reads as, and how it turns with boxes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rsd2.layers import (
    DeformableAttention,
    RotatedDeformableAttention,
    rotated_sampling_locations,
)

# a box (0.5, 0.5, 0.4, 0.2), head 0, zero query, initial offsets; ARS-DETR's clockwise degrees
CHECKS = {
    0.0: [(0.55, 0.5), (0.60, 0.5), (0.65, 0.5), (0.70, 0.5)],
    30.0: [(0.5433, 0.525), (0.5866, 0.55), (0.6299, 0.575), (0.67321, 0.6)],
    -30.0: [(0.5433, 0.475), (0.5866, 0.45), (0.6299, 0.425), (0.67321, 0.4)],
}


@pytest.mark.parametrize("clockwise", CHECKS)
def test_initial_points_of_head_0(clockwise):
    layer = RotatedDeformableAttention(256, 8, 4, 4)
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.2]]])
    offsets = layer.raw_offsets(torch.zeros(1, 1, 256))
    points = rotated_sampling_locations(offsets, boxes, torch.tensor([[-clockwise]]))
    for level in range(4):
        expected = torch.tensor(CHECKS[clockwise])
        assert torch.allclose(points[0, 0, 0, level], expected, atol=6e-5)


def test_last_point_of_each_head_lies_on_the_border_of_the_box():
    layer = RotatedDeformableAttention(32, 8, 1, 4)
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.2]]])
    offsets = layer.raw_offsets(torch.zeros(1, 1, 32))
    points = rotated_sampling_locations(offsets, boxes, torch.zeros(1, 1))[0, 0, :, 0, -1]
    local = (points - 0.5) / torch.tensor([0.2, 0.1])
    assert torch.allclose(local.abs().amax(dim=1), torch.ones(8), atol=1e-5)


def random_layer(kind, embed_dim=16, heads=2, levels=2, points=3):
    layer = kind(embed_dim, heads, levels, points).double()
    layer.reset_sampling(random_weights=True)
    with torch.no_grad():
        layer.attention_weights.bias.normal_()
        layer.value_proj.bias.normal_()
    return layer


def tokens(maps):
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)


@pytest.mark.parametrize("size", [(12, 12), (8, 12)], ids=["square", "wide"])
def test_turning_features_and_boxes_together_changes_nothing(size):
    height, width = size
    layer = random_layer(RotatedDeformableAttention)
    maps = [torch.randn(2, 16, height // d, width // d, dtype=torch.float64) for d in (1, 2)]
    query = torch.randn(2, 5, 16, dtype=torch.float64)
    long_side = max(size)
    boxes = torch.rand(2, 5, 4, dtype=torch.float64) * 0.5 + 0.1
    boxes[..., 0] *= width / long_side
    boxes[..., 1] *= height / long_side
    angles = torch.rand(2, 5, dtype=torch.float64) * 180 - 90
    scale = torch.tensor([[long_side / width, long_side / height]], dtype=torch.float64)
    shapes = [tuple(m.shape[2:]) for m in maps]
    before = layer(query, tokens(maps), boxes, angles, scale.expand(2, -1), shapes)

    # 90 degrees counter-clockwise on screen: (x, y) -> (y, width - x)
    turned = [torch.rot90(m, 1, dims=(2, 3)) for m in maps]
    turned_boxes = boxes.clone()
    turned_boxes[..., 0] = boxes[..., 1]
    turned_boxes[..., 1] = width / long_side - boxes[..., 0]
    turned_shapes = [tuple(m.shape[2:]) for m in turned]
    after = layer(
        query, tokens(turned), turned_boxes, angles + 90, scale.flip(1).expand(2, -1), turned_shapes
    )
    assert before.std() > 1e-2
    assert torch.allclose(before, after, atol=1e-10)


def test_a_box_turned_by_half_a_turn_with_mirrored_offsets_samples_the_same():
    offsets = torch.randn(1, 3, 2, 1, 4, 2)
    boxes, angles = torch.rand(1, 3, 4), torch.rand(1, 3) * 90
    here = rotated_sampling_locations(offsets, boxes, angles)
    there = rotated_sampling_locations(-offsets, boxes, angles + 180)
    assert torch.allclose(here, there, atol=1e-5)


def test_padding_reads_as_zero_and_not_as_the_bias():
    layer = random_layer(DeformableAttention)
    shapes = [(4, 6), (2, 3)]
    value = torch.randn(1, 30, 16, dtype=torch.float64)
    query = torch.randn(1, 7, 16, dtype=torch.float64)
    points = torch.rand(1, 7, 2, dtype=torch.float64)
    padding = torch.zeros(1, 30, dtype=torch.bool)
    padding[:, ::3] = True
    output = layer(query, value, points, shapes, padding)
    other = value.clone()
    other[:, ::3] = 1e3
    assert torch.equal(output, layer(query, other, points, shapes, padding))
    # all padding: only the output bias is left
    everything = layer(query, value, points, shapes, torch.ones_like(padding))
    assert torch.allclose(everything, layer.output_proj.bias.expand_as(everything))


def test_initial_attention_averages_the_points_of_a_constant_map():
    layer = DeformableAttention(16, 2, 1, 2).double()
    value = torch.ones(1, 15 * 15, 16, dtype=torch.float64)
    center = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    output = layer(torch.randn(1, 1, 16).double(), value, center, [(15, 15)])
    assert torch.allclose(output, layer.output_proj(layer.value_proj(value[:, :1])))


def test_offset_of_one_is_one_token():
    layer = DeformableAttention(4, 1, 1, 1).double()
    with torch.no_grad():
        layer.sampling_offsets.bias.copy_(torch.tensor([1.0, 2.0]))
        for projection in (layer.value_proj, layer.output_proj):
            projection.weight.copy_(torch.eye(4))
    value = torch.arange(6 * 5, dtype=torch.float64).view(1, 30, 1).expand(-1, -1, 4)
    point = torch.tensor([[[1.5 / 5, 2.5 / 6]]], dtype=torch.float64)
    output = layer(torch.zeros(1, 1, 4).double(), value, point, [(6, 5)])
    assert torch.allclose(output, torch.full_like(output, (2 + 2) * 5 + 1 + 1))


@pytest.mark.parametrize("kind", [DeformableAttention, RotatedDeformableAttention])
def test_gradients_are_finite_and_reach_every_parameter(kind):
    layer = random_layer(kind).float()
    value = torch.randn(2, 30, 16, requires_grad=True)
    query = torch.randn(2, 4, 16, requires_grad=True)
    shapes = [(4, 6), (2, 3)]
    if kind is DeformableAttention:
        output = layer(query, value, torch.rand(2, 4, 2), shapes)
    else:
        boxes = torch.rand(2, 4, 4)
        boxes[0, 0, 2:] = 0.0
        output = layer(query, value, boxes, torch.rand(2, 4) * 180, torch.ones(2, 2), shapes)
    F.mse_loss(output, torch.randn_like(output)).backward()
    for name, parameter in [*layer.named_parameters(), ("value", value), ("query", query)]:
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_mixed_precision_does_not_move_the_points():
    layer = RotatedDeformableAttention(16, 2, 1, 2)
    # a step between tokens 179 and 180, exact in bfloat16, around which the sampled value is steep
    step = (torch.arange(256) >= 180).float().view(1, 256, 1).expand(-1, -1, 16)
    with torch.no_grad():
        layer.value_proj.weight.copy_(torch.eye(16))
        layer.output_proj.weight.copy_(torch.eye(16))
    # token 179.63, which bfloat16 would round to 180.0
    boxes = torch.tensor([[[0.7017, 0.5, 1e-9, 1e-9]]])
    inputs = (torch.zeros(1, 1, 16), step, boxes, torch.zeros(1, 1), torch.ones(1, 2), [(1, 256)])
    exact = layer(*inputs)
    # without oneDNN, which crashes on virtual machines that announce AMX and do not have it
    with (
        torch.backends.mkldnn.flags(enabled=False),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        lowered = layer(*inputs)
    expected = torch.full((1, 1, 16), 0.7017 * 256 - 179.5)
    assert torch.allclose(exact, expected, atol=1e-4)
    assert torch.allclose(lowered.float(), expected, atol=2e-3)


def test_no_queries():
    layer = RotatedDeformableAttention(16, 2, 1, 2)
    output = layer(
        torch.zeros(2, 0, 16),
        torch.zeros(2, 6, 16),
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0),
        torch.ones(2, 2),
        [(2, 3)],
    )
    assert output.shape == (2, 0, 16)


def test_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="30.*8"):
        DeformableAttention(30, 8)
