"""Which rows are compared, and the regression of DETReg."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rsd2.modeling import AngleCoder, DenoisingQueries
from rsd2.projects.mutdet.alignment import (
    EmbeddedTargets,
    EmbeddingRegression,
    denoising_pairs,
    matched_pairs,
)

C = 6


def make_targets(*counts):
    """Object k of image i has label 10 i + k and its label as the first channel."""
    targets = []
    for image, count in enumerate(counts):
        labels = 10 * image + torch.arange(count)
        boxes = torch.rand(count, 5) * 0.2 + 0.3
        embeddings = F.pad(labels[:, None].float(), (0, C - 1))
        targets.append(EmbeddedTargets(labels, boxes, AngleCoder().encode(boxes), embeddings))
    return targets


def test_matched_pairs_follow_the_indices_of_every_image():
    targets = make_targets(2, 0, 3)
    states = torch.arange(3 * 4).view(3, 4, 1).float()
    empty = torch.empty(0, dtype=torch.int64)
    matches = [
        (torch.tensor([3, 0]), torch.tensor([0, 1])),
        (empty, empty),
        (torch.tensor([1]), torch.tensor([2])),
    ]
    pairs = matched_pairs(states, matches, [t.embeddings for t in targets], targets)
    assert pairs.states[0, :, 0].tolist() == [3.0, 0.0, 9.0]
    assert pairs.embeddings[:, 0].tolist() == [0.0, 1.0, 22.0]
    assert pairs.classes.tolist() == [0, 1, 22]


def noised_states(targets, num_queries):
    """Denoising queries without noise whose states say which object they start from."""
    torch.manual_seed(0)
    denoising = DenoisingQueries(40, C, num_queries, 0.0, 0.0, 0.0)
    denoising.label_embedding.weight.data[:, 0] = torch.arange(40)
    noised = denoising(targets, 5)
    return noised.content, noised


@pytest.mark.parametrize(("num_queries", "groups"), [(1, 1), (9, 3)])
def test_denoising_pairs_have_all_objects_in_every_group(num_queries, groups):
    targets = make_targets(3, 0, 2)
    states, noised = noised_states(targets, num_queries)
    pairs = denoising_pairs(states, noised, [t.embeddings for t in targets], targets)
    assert pairs.states.shape == (groups, 5, C)
    assert pairs.embeddings[:, 0].tolist() == [0.0, 1.0, 2.0, 20.0, 21.0]
    assert pairs.classes.tolist() == [0, 1, 2, 20, 21]
    for group in pairs.states:
        assert torch.equal(group[:, 0], pairs.embeddings[:, 0])


def test_groups_of_denoising_pairs_are_different_queries():
    targets = make_targets(2)
    states, noised = noised_states(targets, 6)
    places = torch.arange(states.shape[1]).view(1, -1, 1).expand(-1, -1, C)
    pairs = denoising_pairs(places, noised, [targets[0].embeddings], targets)
    # every group has two positives, then two negatives
    assert pairs.states[..., 0].tolist() == [[0, 1], [4, 5], [8, 9]]


def test_official_rows_are_copies_of_the_first_image():
    targets = make_targets(3, 2)
    states, noised = noised_states(targets, 9)
    pairs = denoising_pairs(states, noised, [t.embeddings for t in targets], targets, True)
    assert pairs.states[0, :, 0].tolist() == pairs.embeddings[:, 0].tolist() == [0, 1, 2, 0, 1]
    one_group = noised_states(targets, 1)
    ours, theirs = (
        denoising_pairs(*one_group, [t.embeddings for t in targets], targets, official)
        for official in (False, True)
    )
    assert torch.equal(ours.states, theirs.states)
    assert torch.equal(ours.embeddings, theirs.embeddings)


@pytest.mark.parametrize(("distance", "expected"), [("mse", 2 / 4), ("l1", 2 / 4)])
def test_regression_by_hand(distance, expected):
    predicted = torch.tensor([[[3.0, 0, 0, 0], [0, 5.0, 0, 0]]])
    objects = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    classes = torch.zeros(2)
    loss = EmbeddingRegression(distance, weight=3.0)
    # the first pair agrees; the second differs by 1 in two of four channels
    value = loss(predicted, objects, classes, normalizer=2.0)
    assert value.item() == pytest.approx(3 * expected / 2)


def test_regression_is_the_mean_over_channels_and_pairs_and_differentiable():
    predicted = torch.randn(1, 5, C, dtype=torch.float64, requires_grad=True)
    objects = F.normalize(torch.randn(5, C, dtype=torch.float64), dim=1)
    unit = F.normalize(predicted[0], dim=1)
    for distance, function in (("mse", F.mse_loss), ("l1", F.l1_loss)):
        loss = EmbeddingRegression(distance)
        value = loss(predicted, objects, torch.zeros(5), 5.0)
        assert value.item() == pytest.approx(function(unit, objects).item(), rel=1e-12)
        assert torch.autograd.gradcheck(
            lambda p, loss=loss: loss(p, objects, torch.zeros(5), 5.0), (predicted,)
        )
    nothing = torch.zeros(1, 0, C, requires_grad=True)
    EmbeddingRegression()(nothing, torch.zeros(0, C), torch.zeros(0), 1.0).backward()
    assert nothing.grad is not None


def test_unknown_distance():
    with pytest.raises(ValueError, match="'mse' or 'l1', got 'l2'"):
        EmbeddingRegression("l2")
