"""Anchor matching with a minimum, and negatives drawn by weight."""

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, Instances
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsd2.modeling import BoundedMemoryRPN, MinimumQualityMatcher, WeightedNegativeRPN
from rsd2.modeling import anchor_sampling as module
from rsd2.modeling.anchor_sampling import draw_weighted


def make_rpn(overlap_weight=0.6, batch_size=64):
    return make(WeightedNegativeRPN, batch_size, overlap_weight=overlap_weight)


def make(kind, batch_size, **arguments):
    """A proposal network of 512 anchors on a map of 16 x 16."""
    arguments.setdefault("anchor_matcher", MinimumQualityMatcher([0.3, 0.7], [0, -1, 1]))
    return kind(
        in_features=["p2"],
        head=StandardRPNHead(in_channels=4, num_anchors=2),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[6.0, 30.0]], aspect_ratios=[1.0], strides=[4], offset=0.0
        ),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=batch_size,
        positive_fraction=0.5,
        pre_nms_topk=(100, 100),
        post_nms_topk=(100, 100),
        **arguments,
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


def crowd(count, seed=0):
    """Small boxes on a grid of quarters, so that some share their best anchors to the bit."""
    corner, side = (torch.Generator().manual_seed(seed + k) for k in range(2))
    low = torch.randint(0, 200, (count, 2), generator=corner) / 4
    return Boxes(torch.cat([low, low + torch.randint(4, 60, (count, 2), generator=side) / 4], 1))


@pytest.mark.parametrize("pairs", [1, 60, 1000, 2**21])
@pytest.mark.parametrize("boundary", [-1.0, 0.0])
def test_portions_sample_what_detectron2_s_proposal_network_does(pairs, boundary, monkeypatch):
    monkeypatch.setattr(module, "PORTION_PAIRS", pairs)
    whole = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
    theirs = make(RPN, 64, anchor_matcher=whole, anchor_boundary_thresh=boundary)
    ours = make(BoundedMemoryRPN, 64, anchor_boundary_thresh=boundary)
    images = [instances(*crowd(30).tensor.tolist()), instances(), instances([1.0, 2, 9, 8])]
    results = []
    for rpn in (ours, theirs):
        torch.manual_seed(0)
        results.append(rpn.label_and_sample_anchors(anchors_of(rpn), images))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert (results[0][0][0] == 1).sum() == 32


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that an operator returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize("kind", [BoundedMemoryRPN, WeightedNegativeRPN])
def test_a_crowd_needs_no_table_of_all_pairs(kind, monkeypatch):
    monkeypatch.setattr(module, "PORTION_PAIRS", 2**14)
    rpn, image = make(kind, 64), instances(*crowd(1000).tensor.tolist())
    anchors = anchors_of(rpn)
    with LargestTensor() as largest:
        rpn.label_and_sample_anchors(anchors, [image])
    assert len(anchors[0]) * 1000 == 512_000
    # Width and height of an intersection are one tensor.
    assert largest.numel <= 2 * 2**14


def test_a_box_that_meets_no_anchor_makes_none_positive():
    ((labels,), _) = make_rpn().label_and_sample_anchors(
        [Boxes(torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]]))], [instances([50.0, 50, 60, 60])]
    )
    assert labels.tolist() == [0, 0]


def test_an_overlap_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        MinimumQualityMatcher([0.3, 0.7], [0, -1, 1])(torch.tensor([[0.5, float("nan")]]))
