"""First stage: where proposals stand, and which tokens may become references."""

from __future__ import annotations

import pytest
import torch

from rsd2.modeling import AngleCoder
from rsd2.modeling.heads import DetectionHeads
from rsd2.modeling.proposals import INVALID_LOGIT, TwoStageProposals, token_centers

SHAPES = [(4, 8), (2, 4)]


def test_token_centres_by_hand():
    centers = token_centers([(1, 2), (2, 1)], torch.device("cpu"))
    assert centers.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]


def grid(box_to_image=(1.0, 1.0), valid=(1.0, 1.0), padding=None, **options):
    proposals = TwoStageProposals(16, 10, **options)
    return proposals.grid(SHAPES, torch.tensor([box_to_image]), torch.tensor([valid]), padding)


def test_proposals_are_squares_that_double_per_level():
    # an image of 8 x 4 units: one box unit is the long side, so y reaches 0.5
    logits, usable = grid(box_to_image=(1.0, 2.0))
    boxes = logits.sigmoid()[0]
    assert usable.all()
    assert boxes[:32, 2:].unique().tolist() == pytest.approx([0.05])
    assert boxes[32:, 2:].unique().tolist() == pytest.approx([0.10])
    assert boxes[0, :2].tolist() == pytest.approx([0.5 / 8, 0.5 / 8])
    assert boxes[31, :2].tolist() == pytest.approx([7.5 / 8, 3.5 / 8])


def test_border_and_padding_are_unusable():
    # the left 5/8 of the batch are image, with its outermost tokens in the border
    padding = torch.zeros(1, 40, dtype=torch.bool)
    level_0 = padding[:, :32].view(1, 4, 8)
    level_0[..., 5:] = True
    padding[:, 32:].view(1, 2, 4)[..., 3:] = True
    logits, usable = grid(base_size=0.2, border=0.11, valid=(0.625, 1.0), padding=padding)
    fine, coarse = usable[0, :32].view(4, 8), usable[0, 32:].view(2, 4)
    assert fine.nonzero().tolist() == [[y, x] for y in range(4) for x in (1, 2, 3)]
    assert coarse.nonzero().tolist() == [[y, x] for y in range(2) for x in (0, 1)]
    assert (logits[~usable] == INVALID_LOGIT).all()
    assert torch.isfinite(logits).all()


@pytest.fixture
def heads():
    return DetectionHeads(3, 1, 16, AngleCoder())


def forward(proposals, heads, padding=None, valid=(1.0, 1.0), batch=2):
    memory = torch.randn(batch, 40, 16)
    result = proposals(
        memory,
        SHAPES,
        torch.ones(batch, 2),
        torch.tensor([valid]).expand(batch, -1),
        padding,
        heads,
    )
    return result.predictions, result.boxes, result.angles


def test_unusable_tokens_are_not_selected_even_when_they_score_best(heads):
    proposals = TwoStageProposals(16, 10)
    padding = torch.zeros(2, 40, dtype=torch.bool)
    padding[:, 32:] = True
    padding[:, :32].view(2, 4, 8)[..., 4:] = True
    with torch.no_grad():
        # zeroed tokens leave only the biases, which make them the surest objects
        heads.class_heads[1].weight.mul_(0.01)
        proposals.enc_output_norm.weight.zero_()
        proposals.enc_output_norm.bias.fill_(1.0)
    predictions, boxes, angles = forward(proposals, heads, padding, valid=(0.5, 1.0))
    assert boxes.shape == (2, 10, 4)
    assert angles.shape == (2, 10)
    assert (boxes[..., 0] < 0.5).all()
    assert predictions.boxes.shape == (2, 40, 4)


def test_selection_is_by_the_logit_of_class_0(heads):
    proposals = TwoStageProposals(16, 5)
    predictions, boxes, angles = forward(proposals, heads)
    best = predictions.class_logits[..., 0].topk(5).indices
    decoded = AngleCoder().decode(predictions.angle_logits)
    for i in range(2):
        assert torch.equal(boxes[i], predictions.boxes[i, best[i]])
        assert torch.equal(angles[i], decoded[i, best[i]])
    assert not boxes.requires_grad
    assert predictions.boxes.requires_grad


def test_fewer_tokens_than_queries(heads):
    _, boxes, angles = forward(TwoStageProposals(16, 99), heads)
    assert boxes.shape == (2, 40, 4)
    assert angles.shape == (2, 40)


def test_fewer_usable_tokens_than_queries_stay_finite(heads):
    padding = torch.ones(2, 40, dtype=torch.bool)
    padding[:, :3] = False
    _, boxes, angles = forward(TwoStageProposals(16, 10), heads, padding)
    assert boxes.shape == (2, 10, 4)
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(angles).all()
    used = (boxes[..., 2] < 0.5).sum(dim=1)
    assert used.tolist() == [3, 3]


def test_untrained_heads_propose_the_grid(heads):
    predictions, _, _ = forward(TwoStageProposals(16, 5), heads)
    assert torch.allclose(
        predictions.boxes[0, :32, :2], token_centers(SHAPES, "cpu")[:32], atol=1e-6
    )
