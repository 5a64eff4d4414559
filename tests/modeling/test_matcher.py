"""Costs by hand, and an assignment that depends on nothing but the costs."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from torch.nn import functional as F

from rsd2.modeling import DetectorQuirks, HungarianMatcher
from rsd2.modeling.angle_coder import aspect_ratios
from rsd2.modeling.matcher import Predictions, angle_cost, focal_cost

ZERO = {"class_weight": 0.0, "l1_weight": 0.0, "giou_weight": 0.0, "angle_weight": 0.0}


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=generator)
    boxes[:, :2] = boxes[:, :2] * 0.6 + 0.2
    boxes[:, 2:4] = boxes[:, 2:4] * 0.2 + 0.05
    boxes[:, 4] = boxes[:, 4] * 180 - 90
    return boxes


def random_predictions(count, classes=3, batch=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return Predictions(
        torch.randn(batch, count, classes, generator=generator),
        torch.stack([random_boxes(count, seed + i)[:, :4] for i in range(batch)]),
        torch.randn(batch, count, 180, generator=generator),
    )


@pytest.mark.parametrize(("official", "expected"), [(False, 0.0), (True, 2.0)])
def test_l1_of_an_identical_box(make_targets, official, expected):
    quirks = DetectorQuirks(mixed_l1_formats=official)
    matcher = HungarianMatcher(**ZERO | {"l1_weight": 2.0}, quirks=quirks)
    box = torch.tensor([[0.5, 0.5, 0.2, 0.1, 0.0]])
    cost = matcher.cost_matrix(
        torch.zeros(1, 1), box[:, :4], torch.zeros(1, 180), make_targets(box)
    )
    assert cost.item() == pytest.approx(expected, abs=1e-6)


def test_giou_of_an_identical_and_of_a_distant_box(make_targets):
    matcher = HungarianMatcher(**ZERO | {"giou_weight": 5.0})
    box = torch.tensor([[0.25, 0.5, 0.5, 1.0, 0.0]])
    predicted = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])
    cost = matcher.cost_matrix(torch.zeros(2, 1), predicted, torch.zeros(2, 180), make_targets(box))
    # the second only touches the object and fills their common rectangle: GIoU 0
    assert cost[:, 0].tolist() == pytest.approx([-5.0, 0.0], abs=1e-6)


def test_focal_cost_is_what_the_focal_loss_saves():
    logits = torch.randn(6, 4) * 3
    labels = torch.tensor([2, 0, 2])
    cost = focal_cost(logits, labels, 0.25, 2.0)
    for column, label in enumerate(labels):
        x = logits[:, label]
        positive = sigmoid_focal_loss(x, torch.ones_like(x), 0.25, 2.0)
        negative = sigmoid_focal_loss(x, torch.zeros_like(x), 0.25, 2.0)
        assert torch.allclose(cost[:, column], positive - negative, atol=1e-5)


def test_focal_cost_of_certain_predictions_is_finite():
    assert torch.isfinite(
        focal_cost(torch.tensor([[1e4], [-1e4]]), torch.tensor([0]), 0.25, 2)
    ).all()


def test_angle_cost_is_the_elementwise_cross_entropy(make_targets):
    targets = make_targets(random_boxes(4, 1))
    logits = torch.randn(6, 180) * 2
    ratios = aspect_ratios(targets.boxes)
    cost = angle_cost(logits, targets.angle_targets, ratios)
    for q in range(6):
        for n in range(4):
            entropy = F.binary_cross_entropy_with_logits(logits[q], targets.angle_targets[n])
            expected = entropy * 2 * ratios[n] / (1 + ratios[n])
            assert cost[q, n].item() == pytest.approx(expected.item(), rel=1e-4)


def test_whole_cost_by_its_parts(make_targets):
    predictions, targets = random_predictions(6), make_targets(random_boxes(4, 1), [0, 2, 1, 1])
    inputs = (predictions.class_logits[0], predictions.boxes[0], predictions.angle_logits[0])
    weights = {"class_weight": 2.0, "l1_weight": 2.0, "giou_weight": 5.0, "angle_weight": 2.0}
    parts = [
        HungarianMatcher(**ZERO | {name: value}).cost_matrix(*inputs, targets)
        for name, value in weights.items()
    ]
    whole = HungarianMatcher().cost_matrix(*inputs, targets)
    assert torch.allclose(whole, sum(parts), atol=1e-5)


def test_perfect_predictions_are_found_whatever_their_order(make_targets):
    boxes = random_boxes(5, 2)
    targets = make_targets(boxes, [0, 1, 2, 0, 1])
    order = torch.tensor([3, 1, 4, 0, 2])
    predictions = random_predictions(9)
    predictions.boxes[0, :5] = boxes[order, :4]
    predictions.class_logits[0, :5] = F.one_hot(targets.labels[order], 3).float() * 10 - 5
    predictions.angle_logits[0, :5] = targets.angle_targets[order] * 10 - 5
    (rows, columns), *_ = HungarianMatcher()(predictions, [targets])
    assert dict(zip(rows.tolist(), columns.tolist())) == dict(enumerate(order.tolist()))


def test_order_of_predictions_and_objects_does_not_matter(make_targets):
    predictions, boxes = random_predictions(12), random_boxes(5, 3)
    labels = torch.tensor([0, 1, 2, 0, 1])
    (rows, columns), *_ = HungarianMatcher()(predictions, [make_targets(boxes, labels)])
    p, n = torch.randperm(12), torch.randperm(5)
    moved = Predictions(
        predictions.class_logits[:, p], predictions.boxes[:, p], predictions.angle_logits[:, p]
    )
    (rows2, columns2), *_ = HungarianMatcher()(moved, [make_targets(boxes[n], labels[n])])
    before = set(zip(rows.tolist(), columns.tolist()))
    assert before == set(zip(p[rows2].tolist(), n[columns2].tolist()))


def test_images_without_objects_and_with_more_objects_than_queries(make_targets):
    predictions = random_predictions(4, batch=3)
    targets = [make_targets([]), make_targets(random_boxes(9, 1)), make_targets(random_boxes(2, 2))]
    matches = HungarianMatcher()(predictions, targets)
    assert [len(rows) for rows, _ in matches] == [0, 4, 2]
    rows, columns = matches[1]
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    assert len(set(columns.tolist())) == 4
    assert all(x.dtype == torch.int64 for match in matches for x in match)


@pytest.mark.parametrize("field", ["class_logits", "boxes", "angle_logits"])
def test_diverged_predictions_are_an_error(make_targets, field):
    predictions = random_predictions(4)
    getattr(predictions, field)[0, 1] = float("nan")
    with pytest.raises(FloatingPointError, match="image 0.*diverged"):
        HungarianMatcher()(predictions, [make_targets(random_boxes(2, 1))])


def test_broken_annotation_is_not_blamed_on_the_predictions(make_targets):
    targets = make_targets(random_boxes(2, 1))
    targets.boxes[1, 0] = float("nan")
    with pytest.raises(ValueError, match="image 0.*not finite.*annotations"):
        HungarianMatcher()(random_predictions(4), [targets])


def test_mixed_precision_does_not_touch_the_costs(make_targets):
    predictions, targets = random_predictions(6), make_targets(random_boxes(4, 1))
    inputs = (predictions.class_logits[0], predictions.boxes[0], predictions.angle_logits[0])
    exact = HungarianMatcher().cost_matrix(*inputs, targets)
    with (
        torch.backends.mkldnn.flags(enabled=False),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        lowered = HungarianMatcher().cost_matrix(*inputs, targets)
    assert torch.allclose(exact, lowered, atol=1e-5)


def test_one_pixel_and_whole_image_boxes_have_finite_costs(make_targets):
    boxes = [(0.5, 0.5, 1e-3, 1e-3, 0.0), (0.5, 0.5, 1.0, 1.0, 0.0), (0.5, 0.5, 1.4, 1.4, -45.0)]
    matches = HungarianMatcher()(random_predictions(5), [make_targets(boxes)])
    assert len(matches[0][0]) == 3
