"""Folding of angles describes the same rectangle; the decoder refines and isolates queries."""

from __future__ import annotations

import pytest
import torch

from rsd2.modeling import AngleCoder, DeformableEncoder, DetectorQuirks, RotatedDeformableDecoder
from rsd2.modeling.heads import DetectionHeads, inverse_sigmoid
from rsd2.modeling.transformer import fold_angles
from rsd2.structures import boxes_to_corners

SIZES = {
    "embed_dim": 16,
    "num_heads": 2,
    "num_levels": 2,
    "num_points": 2,
    "feedforward_dim": 32,
    "dropout": 0.0,
}
SHAPES = [(4, 6), (2, 3)]


@pytest.mark.parametrize(
    ("clockwise", "official", "swapped", "expected"),
    [
        (-80.0, False, True, 10.0),
        (46.0, False, True, -44.0),
        (-45.0, False, False, -45.0),
        (-80.0, True, True, 10.0),
        (46.0, True, True, -44.0),
        (-45.0, True, False, -45.0),
        # the official program turns +45 by 90 degrees and forgets to swap the sides
        (45.0, False, True, -45.0),
        (45.0, True, False, -45.0),
        (0.0, True, False, 0.0),
    ],
)
def test_published_cases_in_clockwise_degrees(clockwise, official, swapped, expected):
    box = torch.tensor([0.5, 0.4, 0.3, 0.1])
    folded, angle = fold_angles(box, torch.tensor(-clockwise), official)
    assert -angle.item() == expected
    sides = [0.1, 0.3] if swapped else [0.3, 0.1]
    assert folded.tolist() == pytest.approx([0.5, 0.4, *sides])


def corner_sets(boxes, angles):
    corners = boxes_to_corners(torch.cat([boxes, angles[:, None]], dim=1))
    order = (corners[..., 0] * 7.3 + corners[..., 1]).argsort(dim=1)
    return corners.gather(1, order[..., None].expand(-1, -1, 2))


@pytest.mark.parametrize("official", [False, True])
def test_folded_boxes_are_the_same_rectangles(official):
    angles = torch.cat([torch.arange(-90, 90).double(), torch.rand(300).double() * 180 - 90])
    if official:
        angles = angles[angles != -45]
    boxes = torch.rand(len(angles), 4, dtype=torch.float64) + 0.05
    folded, folded_angles = fold_angles(boxes, angles, official)
    assert folded_angles.abs().max() <= 45
    assert torch.allclose(
        corner_sets(boxes, angles), corner_sets(folded, folded_angles), atol=1e-12
    )


def test_official_quirk_is_a_right_angle_off_at_exactly_45():
    box, angle = torch.tensor([[0.5, 0.5, 0.4, 0.1]]), torch.tensor([-45.0])
    folded, folded_angle = fold_angles(box, angle, True)
    assert not torch.allclose(corner_sets(box, angle), corner_sets(folded, folded_angle), atol=1e-3)


@pytest.fixture
def decoder():
    return RotatedDeformableDecoder(3, **SIZES).double()


@pytest.fixture
def heads():
    heads = DetectionHeads(3, 3, 16, AngleCoder()).double()
    for mlp in heads.box_heads:
        torch.nn.init.normal_(mlp.layers[-1].weight, std=0.2)
    return heads


def inputs(batch=2, queries=5):
    return {
        "queries": torch.randn(batch, queries, 16, dtype=torch.float64),
        "boxes": torch.rand(batch, queries, 4, dtype=torch.float64) * 0.6 + 0.2,
        "angles": torch.rand(batch, queries, dtype=torch.float64) * 180 - 90,
        "memory": torch.randn(batch, 30, 16, dtype=torch.float64),
        "box_to_image": torch.ones(batch, 2, dtype=torch.float64),
        "spatial_shapes": SHAPES,
    }


def test_decoder_returns_one_prediction_per_layer(decoder, heads):
    predictions, states = decoder(**inputs(), heads=heads)
    assert len(predictions) == len(states) == 3
    for p, state in zip(predictions, states):
        assert p.class_logits.shape == (2, 5, 3)
        assert p.boxes.shape == (2, 5, 4)
        assert p.angle_logits.shape == (2, 5, 180)
        assert p.boxes.min() >= 0
        assert p.boxes.max() <= 1
        assert torch.allclose(state.mean(-1), torch.zeros(2, 5).double(), atol=1e-6)


def test_zero_box_heads_keep_the_reference(decoder):
    heads = DetectionHeads(3, 3, 16, AngleCoder()).double()
    given = inputs()
    predictions, _ = decoder(**given, heads=heads)
    for p in predictions:
        assert torch.allclose(p.boxes, given["boxes"], atol=1e-9)


def test_look_forward_twice(decoder, heads):
    """A layer's box loss reaches the box head of the layer before, but not the one before that."""
    predictions, _ = decoder(**inputs(), heads=heads)
    grads = torch.autograd.grad(
        predictions[2].boxes.sum(),
        [head.layers[-1].bias for head in heads.box_heads],
        allow_unused=True,
    )
    assert grads[0] is None
    assert grads[1].abs().sum() > 0
    assert grads[2].abs().sum() > 0
    assert grads[3] is None


def test_order_of_the_queries_does_not_matter(decoder, heads):
    given = inputs()
    order = torch.tensor([3, 0, 4, 2, 1])
    before, _ = decoder(**given, heads=heads)
    moved = given | {k: given[k][:, order] for k in ("queries", "boxes", "angles")}
    after, _ = decoder(**moved, heads=heads)
    assert torch.allclose(before[-1].boxes[:, order], after[-1].boxes, atol=1e-10)


def test_masks_isolate_queries(decoder, heads):
    given = inputs()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[2:, :2] = True
    other = dict(given, queries=given["queries"].clone())
    other["queries"][:, :2] += 1.0
    before, _ = decoder(**given, heads=heads, attention_mask=mask)
    after, _ = decoder(**other, heads=heads, attention_mask=mask)
    assert torch.allclose(before[-1].boxes[:, 2:], after[-1].boxes[:, 2:], atol=1e-12)
    assert not torch.allclose(before[-1].boxes[:, :2], after[-1].boxes[:, :2], atol=1e-6)
    # without the mask the others notice
    unmasked, _ = decoder(**given, heads=heads)
    assert not torch.allclose(unmasked[-1].boxes[:, 2:], before[-1].boxes[:, 2:], atol=1e-6)


def test_nobody_attends_to_empty_queries(decoder, heads):
    given = inputs()
    empty = torch.zeros(2, 5, dtype=torch.bool)
    empty[0, 0] = True
    other = dict(given, queries=given["queries"].clone())
    other["queries"][:, 0] += 1.0
    before, _ = decoder(**given, heads=heads, empty_queries=empty)
    after, _ = decoder(**other, heads=heads, empty_queries=empty)
    assert torch.allclose(before[-1].boxes[0, 1:], after[-1].boxes[0, 1:], atol=1e-12)
    assert not torch.allclose(before[-1].boxes[1, 1:], after[-1].boxes[1, 1:], atol=1e-6)


def test_query_positions_ignore_the_angle_and_tell_axes_apart(decoder):
    boxes = torch.tensor([[[0.2, 0.6, 0.3, 0.1], [0.6, 0.2, 0.3, 0.1]]], dtype=torch.float64)
    encoded = decoder.query_positions(boxes)
    assert encoded.shape == (1, 2, 16)
    assert not torch.allclose(encoded[0, 0], encoded[0, 1])


def test_official_initialisation_differs_in_the_weights_only():
    quirks = DetectorQuirks(random_sampling_init=True)
    torch.manual_seed(0)
    ours = RotatedDeformableDecoder(1, **SIZES).layers[0].cross_attention
    theirs = RotatedDeformableDecoder(1, **SIZES, quirks=quirks)
    theirs = theirs.layers[0].cross_attention
    assert ours.sampling_offsets.weight.abs().max() == 0
    assert ours.attention_weights.weight.abs().max() == 0
    assert theirs.sampling_offsets.weight.std() > 0.1
    assert torch.equal(ours.sampling_offsets.bias, theirs.sampling_offsets.bias)


def test_encoder_ignores_what_is_in_the_padding():
    encoder = DeformableEncoder(2, **SIZES).double()
    tokens = torch.randn(1, 30, 16, dtype=torch.float64)
    padding = torch.zeros(1, 30, dtype=torch.bool)
    padding[:, 5::6] = True
    other = tokens.clone()
    other[padding] = 100.0
    rest = (torch.zeros_like(tokens), torch.rand(1, 30, 2).double(), SHAPES, padding)
    before, after = encoder(tokens, *rest), encoder(other, *rest)
    assert torch.allclose(before[~padding], after[~padding], atol=1e-12)


def test_encoder_without_layers_passes_tokens_through():
    tokens = torch.randn(1, 30, 16)
    encoder = DeformableEncoder(0, **SIZES)
    assert encoder(tokens, tokens, torch.rand(1, 30, 2), SHAPES, None) is tokens


def test_inverse_sigmoid():
    x = torch.tensor([0.0, 0.2, 0.9, 1.0, -1.0, 2.0])
    back = inverse_sigmoid(x, 1e-3).sigmoid()
    expected = x.clamp(1e-3 / (1 + 1e-3), 1 / (1 + 1e-3))
    assert torch.allclose(back, expected, atol=1e-6)


def test_prior_probability_is_the_first_score():
    heads = DetectionHeads(4, 1, 16, AngleCoder(), prior_probability=0.02)
    for head in heads.class_heads:
        assert head.bias.sigmoid().tolist() == pytest.approx([0.02] * 4)
    assert heads.encoder_index == 1
