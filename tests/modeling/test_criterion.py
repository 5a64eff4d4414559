"""Losses of matched predictions: by-hand values, normaliser, and direction."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rsd2.modeling import HungarianMatcher, SetCriterion
from rsd2.modeling.criterion import global_normalizers
from rsd2.modeling.matcher import Predictions

BOX = (0.5, 0.5, 0.4, 0.2, 20.0)
PAIR = [(torch.tensor([0]), torch.tensor([0]))]


@pytest.fixture
def criterion():
    return SetCriterion(HungarianMatcher())


def predictions_of(boxes, class_logits, angle_logits=None):
    boxes = torch.tensor([boxes], dtype=torch.float32, requires_grad=True)
    class_logits = torch.tensor([class_logits], dtype=torch.float32, requires_grad=True)
    if angle_logits is None:
        angle_logits = torch.zeros(1, boxes.shape[1], 180)
    return Predictions(class_logits, boxes, angle_logits.requires_grad_())


def test_values_by_hand(criterion, make_targets):
    shifted = (0.7, 0.5, 0.4, 0.2)
    losses = criterion.losses(
        predictions_of([shifted], [[1.0, -2.0]]), [make_targets([BOX], [0])], PAIR, 1.0
    )
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))
    focal = 0.25 * (1 - p) ** 2 * -math.log(p) + 0.75 * q**2 * -math.log(1 - q)
    assert losses["loss_class"].item() == pytest.approx(2 * focal, rel=1e-5)
    assert losses["loss_l1"].item() == pytest.approx(2 * 0.2, rel=1e-5)
    # intersection 0.2 x 0.2, union 0.12, both fill their common rectangle: GIoU = IoU = 1/3
    assert losses["loss_giou"].item() == pytest.approx(5 * (1 - 1 / 3), rel=1e-4)
    assert losses["loss_angle"].item() == pytest.approx(2 * math.log(2) * 4 / 3, rel=1e-4)


def test_boxes_that_fit_cost_nothing(criterion, make_targets):
    losses = criterion.losses(
        predictions_of([BOX[:4]], [[0.0]]), [make_targets([BOX], [0])], PAIR, 1.0
    )
    assert losses["loss_l1"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_giou"].item() == pytest.approx(0, abs=1e-4)


def test_every_loss_is_divided_by_the_normaliser_and_named_with_the_suffix(criterion, make_targets):
    given = predictions_of([(0.4, 0.5, 0.3, 0.3)] * 2, [[0.0], [1.0]])
    targets = [make_targets([BOX], [0])]
    once = criterion.losses(given, targets, PAIR, 1.0)
    fourth = criterion.losses(given, targets, PAIR, 4.0, "_x")
    assert set(once) == {"loss_class", "loss_l1", "loss_giou", "loss_angle"}
    for name, value in once.items():
        assert fourth[name + "_x"].item() == pytest.approx(value.item() / 4)


def test_without_objects_all_losses_are_attached(criterion, make_targets):
    given = predictions_of([BOX[:4]] * 3, [[0.0, 1.0]] * 3)
    losses, matches = criterion.matched_losses(given, [make_targets([])], 1.0)
    assert [len(x) for x in matches[0]] == [0, 0]
    assert losses["loss_class"] > 0
    assert losses["loss_l1"] == losses["loss_giou"] == losses["loss_angle"] == 0
    sum(losses.values()).backward()
    for tensor in (given.boxes, given.angle_logits, given.class_logits):
        assert torch.isfinite(tensor.grad).all()


def test_loss_falls_when_a_prediction_moves_to_its_object(criterion, make_targets):
    targets = [make_targets([BOX], [1])]
    start = torch.tensor([0.3, 0.6, 0.2, 0.3])
    perfect_angle = targets[0].angle_targets.clamp(1e-6, 1 - 1e-6).logit()[None]
    totals = []
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        box = (1 - t) * start + t * torch.tensor(BOX[:4])
        given = predictions_of([box.tolist()], [[-4.0 * t, 8 * t - 4]], perfect_angle * t)
        losses, _ = criterion.matched_losses(given, targets, 1.0)
        totals.append([value.item() for value in losses.values()])
    for column in zip(*totals):
        assert all(a > b for a, b in zip(column, column[1:]))


def test_half_a_turn_of_the_object_changes_no_loss(criterion, make_targets):
    given = predictions_of([(0.4, 0.5, 0.3, 0.3)], [[0.0]], torch.randn(1, 1, 180))
    turned = (*BOX[:4], BOX[4] + 180)
    here, there = (
        criterion.matched_losses(given, [make_targets([box])], 1.0)[0] for box in (BOX, turned)
    )
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_class_agnostic_losses_know_only_class_0(criterion, make_targets):
    given = predictions_of([BOX[:4]], [[3.0, -3.0]])
    as_first = criterion.matched_losses(given, [make_targets([BOX], [0])], 1.0)[0]
    as_any, _ = criterion.matched_losses(
        given, [make_targets([BOX], [1])], 1.0, "_enc", class_agnostic=True
    )
    assert as_any["loss_class_enc"] == as_first["loss_class"]


def test_ignored_predictions_enter_no_loss(criterion, make_targets):
    given = predictions_of([BOX[:4]] * 2, [[0.0], [5.0]])
    targets = [make_targets([BOX], [0])]
    ignored = torch.tensor([[False, True]])
    losses = criterion.losses(given, targets, PAIR, 1.0, ignored=ignored)
    sum(losses.values()).backward()
    assert given.class_logits.grad[0, 1].abs().max() == 0
    assert given.class_logits.grad[0, 0].abs().max() > 0


def test_a_prediction_on_an_object_that_is_left_out_is_no_background(criterion, make_targets):
    near, far = (0.52, 0.5, 0.4, 0.2), (0.1, 0.1, 0.1, 0.1)
    given = predictions_of([BOX[:4], near, far], [[3.0], [0.0], [0.0]])
    left_out = torch.tensor([BOX[:4]])
    targets = [replace(make_targets([BOX], [0]), left_out=left_out)]
    losses, ((matched, _),) = criterion.matched_losses(given, targets, 1.0)
    sum(losses.values()).backward()
    # The matched one lies on it too, and learns nevertheless.
    assert matched.tolist() == [0]
    assert (given.class_logits.grad[0, :, 0] != 0).tolist() == [True, False, True]


def test_gradient_of_the_class_loss_pushes_the_right_way(criterion, make_targets):
    given = predictions_of([BOX[:4], (0.1, 0.1, 0.1, 0.1)], [[0.0, 0.0]] * 2)
    losses, _ = criterion.matched_losses(given, [make_targets([BOX], [1])], 1.0)
    losses["loss_class"].backward()
    signs = given.class_logits.grad[0].sign()
    assert torch.equal(signs, torch.tensor([[1.0, -1.0], [1.0, 1.0]]))


def test_three_thousand_objects(criterion, make_targets):
    boxes = torch.rand(3000, 5) * torch.tensor([1, 1, 0.1, 0.1, 90.0]) + 1e-3
    given = Predictions(torch.randn(1, 20, 2), torch.rand(1, 20, 4), torch.randn(1, 20, 180))
    losses, matches = criterion.matched_losses(given, [make_targets(boxes)], 20.0)
    assert len(matches[0][0]) == 20
    assert all(torch.isfinite(value) for value in losses.values())


def test_mixed_precision_predictions_are_lifted(criterion, make_targets):
    given = Predictions(torch.zeros(1, 2, 2), torch.full((1, 2, 4), 0.5), torch.zeros(1, 2, 180))
    losses, _ = criterion.matched_losses(given, [make_targets([BOX], dtype=torch.float64)], 1.0)
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert F.relu(losses["loss_class"]) > 0


def test_normaliser_of_one_process_is_the_count_but_at_least_one():
    assert global_normalizers([0, 1, 7], torch.device("cpu")) == [1.0, 1.0, 7.0]
