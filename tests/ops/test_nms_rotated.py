import importlib
import math

import pytest
import torch

from rsd2.ops import (
    batched_nms_rotated,
    box_iou_rotated,
    nms_rotated,
    paired_iou_rotated,
    sparse_iou_rotated,
)
from rsd2.testing import random_rotated_boxes

MODULE = importlib.import_module("rsd2.ops.nms_rotated")
REFERENCES = {"batched_nms_rotated": MODULE.reference_batched_nms_rotated}
pytestmark = pytest.mark.usefixtures("implementation")


def greedy(boxes, scores, idxs, threshold) -> list[int]:
    """The definition: visit by score, keep unless a kept box of the same class overlaps."""
    iou = box_iou_rotated(boxes, boxes)
    kept: list[int] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if all(idxs[i] != idxs[j] or iou[i, j] <= max(threshold, 1e-12) for j in kept):
            kept.append(i)
    return kept


def scene(count: int, classes: int, seed: int = 0):
    """Clustered boxes, scores with ties, classes."""
    generator = torch.Generator().manual_seed(seed)
    boxes = random_rotated_boxes(max(1, count // 4), 300.0, 8.0, 60.0, seed=seed)
    boxes = boxes[torch.randint(len(boxes), (count,), generator=generator)]
    boxes = boxes + torch.randn(count, 5, generator=generator) * torch.tensor([2.0, 2, 1, 1, 5])
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    return boxes, scores, torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize("block", [1, 7, 64, 512])
@pytest.mark.parametrize("classes", [1, 5, 100])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
def test_equals_the_definition(block, classes, threshold, monkeypatch):
    monkeypatch.setattr(MODULE, "BLOCK", block)
    boxes, scores, idxs = scene(150, classes)
    expected = greedy(boxes, scores, idxs, threshold)
    assert batched_nms_rotated(boxes, scores, idxs, threshold).tolist() == expected


def test_one_class_is_the_batched_form_of_one_group():
    boxes, scores, _ = scene(200, 1, seed=3)
    kept = nms_rotated(boxes, scores, 0.3)
    assert kept.dtype == torch.int64
    assert kept.tolist() == greedy(boxes, scores, torch.zeros(200), 0.3)
    assert (scores[kept].diff() <= 0).all()


def test_survivors_stay_under_the_threshold_and_the_rest_is_covered():
    boxes, scores, idxs = scene(400, 3, seed=1)
    kept = batched_nms_rotated(boxes, scores, idxs, 0.2)
    iou = box_iou_rotated(boxes, boxes)
    same = idxs[:, None] == idxs[None]
    among = (iou * same)[kept][:, kept].fill_diagonal_(0)
    assert (among <= 0.2).all()
    suppressed = torch.ones(400, dtype=torch.bool)
    suppressed[kept] = False
    better = scores[:, None] >= scores[None]
    assert ((iou > 0.2) & same & better)[kept][:, suppressed].any(0).all()
    # What was kept stays when asked again.
    again = batched_nms_rotated(boxes[kept], scores[kept], idxs[kept], 0.2)
    assert again.tolist() == list(range(len(kept)))


def test_ties_go_to_the_lower_index_and_equality_is_kept():
    box = torch.tensor([[0.0, 0, 4, 2, 0]])
    boxes = torch.cat([box, box, box + torch.tensor([0, 0, 0, 0, 180.0])])
    assert nms_rotated(boxes, torch.ones(3), 0.5).tolist() == [0]
    third = torch.cat([box, box + torch.tensor([[2.0, 0, 0, 0, 0]])])  # IoU exactly 1 / 3
    iou = box_iou_rotated(third, third)[0, 1].item()
    assert nms_rotated(third, torch.ones(2), iou).tolist() == [0, 1]
    assert nms_rotated(third, torch.ones(2), iou - 1e-6).tolist() == [0]


def test_the_kept_box_is_the_first_of_a_decision():
    # Needles moved along themselves: of 1e-7 px, rounding differs by 1e-8 between the two orders.
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(2000, 5, generator=generator, dtype=torch.float64)
    length, angle, thin = 50 + 250 * u[:, 0], 360 * u[:, 1], 1e-7 * (1 + u[:, 2])
    center = torch.full_like(length, 512.0)
    kept = torch.stack([center, center, length, thin, angle], dim=1)
    slide, other = 0.8 * (u[:, 3] - 0.5) * length, kept.clone()
    other[:, 0] += slide * torch.deg2rad(angle).cos()
    other[:, 1] -= slide * torch.deg2rad(angle).sin()
    other[:, 4] += 20 * (u[:, 4] - 0.5) * thin / length
    forward, backward = paired_iou_rotated(kept, other), paired_iou_rotated(other, kept)
    difference = (forward - backward).abs()
    scores = torch.tensor([0.9, 0.8])
    for i in difference.topk(50).indices.tolist():
        assert difference[i] > 2e-9
        threshold = ((forward[i] + backward[i]) / 2).item()
        survivors = nms_rotated(torch.stack([kept[i], other[i]]), scores, threshold)
        assert len(survivors) == (1 if forward[i] > threshold else 2)


def test_a_suppressed_box_suppresses_nobody():
    boxes = torch.tensor([[0.0, 0, 10, 4, 0], [3, 0, 10, 4, 0], [6, 0, 10, 4, 0]])
    assert nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_far_classes_of_large_scenes_are_not_confused():
    # A coordinate offset by class would lose these digits.
    box = torch.tensor([[20000.0, 20000, 10, 4, 30.0]])
    near = box + torch.tensor([[0.0, 2.5, 0, 0, 0]])
    iou = box_iou_rotated(box, near).item()
    boxes = torch.cat([box, near]).repeat(500, 1)
    idxs = torch.arange(500).repeat_interleave(2) * 10**9
    kept = batched_nms_rotated(boxes, torch.ones(1000), idxs, iou - 1e-4)
    assert kept.tolist() == list(range(0, 1000, 2))


def test_invalid_boxes_overlap_nothing():
    bad = torch.tensor([[math.nan, 0, 4, 2, 0], [0, 0, math.inf, 2, 0], [0, 0, 0, 2, 0]])
    boxes = torch.cat([torch.tensor([[0.0, 0, 4, 2, 0]]), bad, torch.tensor([[0.0, 0, 4, 2, 1]])])
    assert nms_rotated(boxes, torch.tensor([0.5, 0.9, 0.8, 0.7, 0.4]), 0.1).tolist() == [1, 2, 3, 0]


def test_empty_infinite_scores_and_half():
    assert nms_rotated(torch.zeros(0, 5), torch.zeros(0), 0.5).shape == (0,)
    boxes = random_rotated_boxes(3, 10000.0, 4.0, 8.0)
    assert nms_rotated(boxes, torch.tensor([-math.inf, 0, math.inf]), 0.5).tolist() == [2, 1, 0]
    close = torch.tensor([[0, 0, 4, 2, 0], [0, 0, 4, 2, 1]]).half()
    assert nms_rotated(close, torch.tensor([0.1, 0.2]).half(), 0.5).tolist() == [1]


def test_gradients_are_not_needed():
    boxes, scores, _ = scene(20, 1)
    kept = nms_rotated(boxes.requires_grad_(), scores.requires_grad_(), 0.5)
    assert not kept.requires_grad


def test_bad_input_is_named():
    boxes, scores, idxs = scene(4, 2)
    with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
        nms_rotated(boxes, torch.tensor([0.1, math.nan, 0.2, 0.3]), 0.5)
    with pytest.raises(ValueError, match="iou_threshold.*1.5"):
        nms_rotated(boxes, scores, 1.5)
    with pytest.raises(ValueError, match="iou_threshold.*nan"):
        nms_rotated(boxes, scores, math.nan)
    with pytest.raises(ValueError, match=r"boxes.*\(4, 4\)"):
        nms_rotated(boxes[:, :4], scores, 0.5)
    with pytest.raises(ValueError, match=r"scores.*\(3,\)"):
        nms_rotated(boxes, scores[:3], 0.5)
    with pytest.raises(ValueError, match=r"idxs.*\(3,\)"):
        batched_nms_rotated(boxes, scores, idxs[:3], 0.5)
    with pytest.raises(ValueError, match="scores are on meta"):
        nms_rotated(boxes, scores.to("meta"), 0.5)
    with pytest.raises(ValueError, match="idxs are on meta"):
        batched_nms_rotated(boxes, scores, idxs.to("meta"), 0.5)


def test_ten_thousand_boxes_are_thinned_out_as_defined():
    boxes = random_rotated_boxes(10_000, 1024.0, 8.0, 100.0)
    scores, idxs = torch.randperm(10_000) / 10_000, torch.arange(10_000) % 15
    kept = torch.zeros(10_000, dtype=torch.bool)
    kept[batched_nms_rotated(boxes, scores, idxs, 0.1)] = True
    rows, columns, _ = sparse_iou_rotated(boxes.double(), boxes.double(), 0.1)
    same = (idxs[rows] == idxs[columns]) & kept[rows] & (scores[rows] > scores[columns])
    suppressed = torch.zeros_like(kept)
    suppressed[columns[same]] = True
    assert torch.equal(suppressed, ~kept)


def test_ten_thousand_equal_boxes_leave_the_best_of_each_class():
    boxes = random_rotated_boxes(1, 1024.0, 8.0, 100.0).expand(10_000, 5)
    scores, idxs = torch.randperm(10_000) / 10_000, torch.arange(10_000) % 15
    best = [int(scores[k::15].argmax()) * 15 + k for k in range(15)]
    assert sorted(batched_nms_rotated(boxes, scores, idxs, 0.1).tolist()) == sorted(best)
