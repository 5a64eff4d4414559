"""AR-CSL is the IoU of a box with its turned copy; encode and decode are each other's inverse."""

from __future__ import annotations

import math

import pytest
import torch

from rsd2.modeling.angle_coder import AngleCoder, aspect_ratios, iou_of_turned_copy
from rsd2.ops import paired_iou_rotated
from rsd2.structures import canonicalize
from rsd2.testing import random_rotated_boxes

# offsets in degrees and targets of ARS-DETR's program for k:1 boxes, 4 digits
OFFSETS = (0, 1, 2, 5, 10, 20, 30, 45, 60, -90)
TABLE = {
    1.0: (1, 0.9419, 0.8868, 0.7373, 0.5330, 0.2496, 0.0852, 0, 0.0852, 1.0),
    1.5: (1, 0.9631, 0.9281, 0.8327, 0.7009, 0.5115, 0.3884, 0.2776, 0.1976, 0),
    2.0: (1, 0.9681, 0.9377, 0.8545, 0.7382, 0.5633, 0.4350, 0.2761, 0.1087, 0),
    5.0: (1, 0.9504, 0.9035, 0.7768, 0.6010, 0.3304, 0.1562, 0.0603, 0.0219, 0),
    10.0: (1, 0.9112, 0.8300, 0.6228, 0.3619, 0.1252, 0.0617, 0.0248, 0.0091, 0),
}


def circular_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b + 90) % 180 - 90).abs()


@pytest.mark.parametrize("ratio", TABLE)
def test_label_equals_the_published_table(ratio, dtype):
    label = AngleCoder().smooth_label(torch.tensor([ratio], dtype=dtype))[0]
    values = label[torch.tensor(OFFSETS) + 90].tolist()
    assert values == pytest.approx(TABLE[ratio], abs=5.1e-5)


@pytest.mark.parametrize("ratio", [1.0, 1.01, 1.5, 2.0, 3.7, 5.0, 10.0, 40.0])
def test_closed_form_is_the_exact_rotated_iou(ratio):
    degrees = torch.arange(-90, 91, dtype=torch.float64)
    box = torch.tensor([3.0, -2.0, 20.0 * ratio, 20.0, 17.0], dtype=torch.float64)
    boxes = box.repeat(len(degrees), 1)
    turned = boxes.clone()
    turned[:, 4] += degrees
    expected = paired_iou_rotated(boxes, turned)
    actual = iou_of_turned_copy(torch.tensor([ratio], dtype=torch.float64), degrees)[0]
    # the two branches meet at a whole degree below the exact angle, as the source defines it
    assert torch.allclose(actual, expected, atol=2e-3 if ratio > 1 else 1e-5)
    assert (actual - expected).abs().median() < 1e-6


@pytest.mark.parametrize("angle", [-90.0, -89.999, -45.0, -0.001, 0.0, 44.999, 45.0, 89.0, 89.999])
def test_round_trip_at_boundary_angles(angle, dtype):
    coder = AngleCoder()
    box = torch.tensor([[10.0, 10.0, 30.0, 10.0, angle]], dtype=dtype)
    target = coder.encode(box)
    assert target.shape == (1, 180)
    assert target.max() == 1
    assert target.argmax() == math.floor(angle + 90)
    decoded = coder.decode(target.logit(1e-6))
    assert circular_distance(decoded, box[:, 4]).item() <= 0.5 + 1e-4


def test_round_trip_of_random_boxes_and_range():
    coder = AngleCoder()
    boxes = canonicalize(random_rotated_boxes(500, seed=1))
    targets = coder.encode(boxes)
    assert targets.min() >= 0
    assert targets.max() <= 1
    assert circular_distance(coder.decode(targets), boxes[:, 4]).max() <= 0.5 + 1e-4


def test_peak_stands_in_the_bin_of_the_angle():
    angles = torch.arange(-90, 90) + 0.25
    boxes = torch.tensor([0.0, 0.0, 8.0, 2.0, 0.0]).repeat(180, 1)
    boxes[:, 4] = angles
    targets = AngleCoder().encode(boxes)
    assert targets.argmax(dim=1).tolist() == list(range(180))
    assert torch.equal((targets == 1).sum(dim=1), torch.ones(180, dtype=torch.int64))


def test_half_a_turn_changes_nothing_and_a_turn_by_bins_shifts_the_circle():
    coder = AngleCoder()
    boxes = torch.tensor([[0.0, 0.0, 9.0, 4.0, 12.5], [0.0, 0.0, 50.0, 1.0, -77.5]])
    turned, shifted = boxes.clone(), boxes.clone()
    turned[:, 4] += 180
    shifted[:, 4] += 120
    assert torch.equal(coder.encode(boxes), coder.encode(turned))
    assert torch.equal(coder.encode(boxes).roll(120, dims=1), coder.encode(shifted))


def test_square_is_its_own_quarter_turn():
    target = AngleCoder().encode(torch.tensor([[0.0, 0.0, 6.0, 6.0, 10.5]]))[0]
    assert torch.allclose(target, target.roll(90), atol=1e-6)


@pytest.mark.parametrize("sides", [(10.0, 0.0), (0.0, 0.0), (1e-12, 1e-12), (1e6, 1e-3)])
def test_degenerate_sides_give_finite_targets(sides):
    boxes = torch.tensor([[5.0, 5.0, *sides, 30.0]])
    target = AngleCoder().encode(boxes)
    assert torch.isfinite(target).all()
    assert target.max() == 1
    assert 1 <= aspect_ratios(boxes).item() <= 1e4


def test_no_boxes():
    assert AngleCoder().encode(torch.zeros(0, 5)).shape == (0, 180)
    assert AngleCoder().decode(torch.zeros(2, 0, 180)).shape == (2, 0)


def test_other_bin_numbers_are_refused():
    with pytest.raises(ValueError, match="180"):
        AngleCoder(90)
