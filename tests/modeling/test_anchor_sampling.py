"""Anchor matching with a minimum, and negatives drawn by weight."""

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, Instances

from rsd2.modeling import MinimumQualityMatcher, WeightedNegativeRPN
from rsd2.modeling.anchor_sampling import draw_weighted


def make_rpn(overlap_weight=0.6, batch_size=64):
    return WeightedNegativeRPN(
        in_features=["p2"],
        head=StandardRPNHead(in_channels=4, num_anchors=2),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[6.0, 30.0]], aspect_ratios=[1.0], strides=[4], offset=0.0
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=batch_size,
        overlap_weight=overlap_weight,
    )


def instances(*boxes):
    result = Instances((64, 64))
    result.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return result


def anchors_of(rpn):
    return rpn.anchor_generator([torch.zeros(1, 4, 16, 16)])


def test_samples_the_wanted_numbers():
    rpn = make_rpn()
    # centres lie at multiples of four, so that one anchor is the box itself
    ((labels,), (matched,)) = rpn.label_and_sample_anchors(
        anchors_of(rpn), [instances([9.0, 9, 15, 15])]
    )
    assert (labels == 1).sum() == 1
    assert (labels == 0).sum() == 63
    assert torch.equal(matched[labels == 1], torch.tensor([[9.0, 9, 15, 15]]))


def test_positives_are_at_most_their_fraction():
    rpn = make_rpn(batch_size=8)
    many = [[4.0 * i + 1, 9, 4.0 * i + 7, 15] for i in range(12)]
    ((labels,), _) = rpn.label_and_sample_anchors(anchors_of(rpn), [instances(*many)])
    assert (labels == 1).sum() == 4 and (labels == 0).sum() == 4


def test_images_without_boxes_give_negatives_only():
    rpn = make_rpn()
    labels, _ = rpn.label_and_sample_anchors(anchors_of(rpn), [instances(), instances()])
    for label in labels:
        assert (label == 0).sum() == 64 and (label == 1).sum() == 0


def share_of_containing(overlap_weight, rounds=60):
    """How often a sampled negative contains the box, over the share of such negatives."""
    rpn, box = make_rpn(overlap_weight, batch_size=21), [20.0, 20, 23, 23]
    anchors = anchors_of(rpn)
    every = anchors[0].tensor
    inside = (every[:, :2] <= 20).all(1) & (every[:, 2:] >= 23).all(1)
    hits = total = 0
    for _ in range(rounds):
        ((labels,), _) = rpn.label_and_sample_anchors(anchors, [instances(box)])
        hits += int(inside[labels == 0].sum())
        total += int((labels == 0).sum())
    negatives = len(every) - 1
    expected_share = (int(inside.sum()) - 1) / negatives
    return hits / total / expected_share


def test_negatives_that_contain_an_object_are_preferred():
    assert share_of_containing(0.0) == pytest.approx(1.0, abs=0.2)
    # e^0.6 = 1.82 times as likely as an anchor that meets nothing; partly covered ones, rare
    # here, lie between
    assert share_of_containing(0.6) == pytest.approx(1.6, abs=0.25)
    assert share_of_containing(3.0) > 3


def test_draws_follow_the_weights():
    log_weights = torch.tensor([0.0, 1.0, 2.0]).log1p()  # weights 1, 2, 3
    first = torch.bincount(
        torch.stack([draw_weighted(log_weights, 1) for _ in range(6000)]).flatten(), minlength=3
    )
    assert torch.allclose(first / 6000, torch.tensor([1, 2, 3]) / 6, atol=0.03)


def test_draws_are_distinct_and_may_be_none_or_all():
    weights = torch.zeros(50)
    assert sorted(draw_weighted(weights, 50).tolist()) == list(range(50))
    assert draw_weighted(weights, 0).numel() == 0
    assert draw_weighted(torch.zeros(0), 0).numel() == 0


@pytest.mark.parametrize(("minimum", "positive"), [(0.0, [0, 2]), (0.3, [0]), (0.25, [0, 2])])
def test_a_best_anchor_needs_the_minimum(minimum, positive):
    quality = torch.tensor([[0.6, 0.5, 0.0, 0.0], [0.0, 0.1, 0.25, 0.0]])
    matcher = MinimumQualityMatcher([0.3, 0.7], [0, -1, 1], min_quality=minimum)
    _, labels = matcher(quality)
    assert (labels == 1).nonzero().flatten().tolist() == positive


def test_without_a_minimum_it_is_detectron2_s_matcher():
    quality = torch.rand(7, 200)
    ours = MinimumQualityMatcher([0.3, 0.7], [0, -1, 1])(quality)
    theirs = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_matching_survives_an_image_without_boxes():
    _, labels = MinimumQualityMatcher([0.3, 0.7], [0, -1, 1], min_quality=0.3)(torch.zeros(0, 5))
    assert labels.tolist() == [0] * 5
