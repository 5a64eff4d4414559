"""Angle classification loss."""

from __future__ import annotations

import math

import pytest
import torch

from rsd2.modeling import AngleCoder
from rsd2.modeling.losses import angle_classification_loss, aspect_ratio_weight


def test_weight_by_hand():
    weights = aspect_ratio_weight(torch.tensor([1.0, 3.0, 9.0, 1e4]))
    assert weights.tolist() == pytest.approx([1.0, 1.5, 1.8, 2.0], abs=1e-3)


def test_value_by_hand():
    logits = torch.zeros(2, 180)
    targets = torch.rand(2, 180)
    # the cross entropy of a coin is log 2 against any target
    loss = angle_classification_loss(logits, targets, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(math.log(2) * (1 + 1.5), rel=1e-6)


def test_minimum_is_the_entropy_of_the_target():
    targets = AngleCoder().encode(torch.tensor([[0.0, 0.0, 6.0, 2.0, 13.0]])).double()
    targets = targets.clamp(1e-9, 1 - 1e-9)
    ratios = torch.tensor([3.0], dtype=torch.float64)
    best = angle_classification_loss(targets.logit(), targets, ratios)
    entropy = -(targets * targets.log() + (1 - targets) * (1 - targets).log()).mean() * 1.5
    assert best.item() == pytest.approx(entropy.item(), rel=1e-6)
    for _ in range(5):
        other = targets.logit() + 0.1 * torch.randn(1, 180)
        assert angle_classification_loss(other, targets, ratios) > best


def test_gradient():
    targets = torch.rand(3, 9, dtype=torch.float64)
    ratios = torch.tensor([1.0, 2.5, 40.0], dtype=torch.float64)
    logits = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: angle_classification_loss(x, targets, ratios), logits)


def test_half_a_turn_of_the_object_changes_nothing():
    logits = torch.randn(1, 180)
    box = torch.tensor([[0.0, 0.0, 6.0, 2.0, 13.0]])
    turned = box + torch.tensor([0.0, 0.0, 0.0, 0.0, 180.0])
    values = [
        angle_classification_loss(logits, AngleCoder().encode(b), torch.tensor([3.0]))
        for b in (box, turned)
    ]
    assert values[0] == values[1]


def test_without_boxes_it_is_an_attached_zero():
    logits = torch.zeros(0, 180, requires_grad=True)
    loss = angle_classification_loss(logits, torch.zeros(0, 180), torch.zeros(0))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
