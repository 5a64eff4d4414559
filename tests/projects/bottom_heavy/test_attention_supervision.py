"""Targets and losses of the attention maps, against loops over pixels and values by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from rsd2.projects.bottom_heavy.attention_supervision import (
    AttentionLoss,
    attention_targets,
    box_pixels,
    centerness,
    dice_loss,
    level_matches,
    select_pixels,
)

STRIDES = (4, 8, 16, 32)


def square(size, x=0.0, y=0.0):
    return [x, y, x + size, y + size]


@pytest.mark.parametrize(
    ("size", "sane", "official"),
    [
        (0.5, "1000", "1000"),
        (3.9, "1000", "1000"),
        (4, "1000", "0000"),  # no level at all
        (5, "1000", "1000"),
        (8, "1100", "1000"),
        (20, "1110", "1110"),
        (32, "0111", "0110"),
        (33, "0111", "0111"),
        (64, "0011", "0011"),
        (100, "0011", "0011"),
        (1000, "0001", "0001"),
    ],
)
def test_levels_of_a_size(size, sane, official):
    boxes = torch.tensor([square(size), [0, 0, size * 2, size / 2]])
    for flag, expected in ((False, sane), (True, official)):
        found = level_matches(boxes, STRIDES, official=flag)
        for column in found.T:  # the size is the root of the area, whatever the shape
            assert "".join(str(int(v)) for v in column) == expected


def test_pixels_of_boxes_by_hand():
    boxes = torch.tensor([[1.2, 0.0, 3.0, 1.5], [5.0, 5.0, 5.0, 9.0], [-3.0, 6.5, 0.5, 99.0]])
    index, rows, columns = box_pixels(boxes, height=8, width=10)
    found = list(zip(index.tolist(), rows.tolist(), columns.tolist()))
    assert found == [(0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 1, 2), (2, 6, 0), (2, 7, 0)]


def test_no_box_and_boxes_outside_have_no_pixels():
    for boxes in (torch.zeros(0, 4), torch.tensor([[20.0, 20, 30, 30], [-9, -9, -1, -1]])):
        assert all(len(part) == 0 for part in box_pixels(boxes, 8, 8))


def test_centerness_by_hand():
    # a box of 4 x 1 pixels: distances to left 1 2 3 4, to right 4 3 2 1, vertical 1 and 1
    boxes = torch.tensor([[2.0, 3, 6, 4]]).expand(4, 4)
    columns, rows = torch.arange(2, 6), torch.full((4,), 3)
    expected = torch.tensor([1 / 4, 2 / 3, 2 / 3, 1 / 4]).sqrt()
    assert torch.allclose(centerness(boxes, rows, columns), expected)
    # the far sides one pixel nearer: right 3 2 1 0, and vertically 1 and 0
    assert not centerness(boxes, rows, columns, official=True).any()
    tall = torch.tensor([[2.0, 3, 6, 5]]).expand(4, 4)
    expected = torch.tensor([1 / 3, 2 / 2, 1 / 3, 0]).sqrt()
    assert torch.allclose(centerness(tall, rows, columns, official=True), expected)


def slow_target(boxes, size, stride, level, kind):
    """One pixel after the other, one box after the other."""
    canvas = torch.zeros(size)
    low, high = 4 * 2**level, 32 * 2**level
    for x0, y0, x1, y1 in boxes.tolist():
        s = math.sqrt((x1 - x0) * (y1 - y0))
        matched = (s >= low or level == 0) and (s < high or level == 3)
        if kind == "tinymap" and not matched:
            continue
        for row in range(max(int(y0), 0), min(math.ceil(y1), size[0])):
            for column in range(max(int(x0), 0), min(math.ceil(x1), size[1])):
                value = 1.0 if matched else -1.0
                if kind == "tinymap":
                    left, right = column + 1 - x0, x1 - column
                    top, bottom = row + 1 - y0, y1 - row
                    value = min(left, right) / max(left, right) * min(top, bottom)
                    value = math.sqrt(value / max(top, bottom))
                canvas[row, column] = value
    # bilinear sampling at the centre of a cell of even size: its four middle pixels
    first = slice(stride // 2 - 1, None, stride)
    second = slice(stride // 2, None, stride)
    return sum(canvas[a][:, b] for a in (first, second) for b in (first, second)) / 4


@pytest.mark.parametrize("kind", ["heatmap", "tinymap"])
def test_targets_equal_the_slow_way(kind):
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(30, 2, generator=generator) * torch.tensor([96.0, 64.0]) - 5
    sides = 2 * 40 ** torch.rand(30, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=1)
    found = attention_targets(boxes, (64, 96), STRIDES, kind=kind)
    for level, (stride, target) in enumerate(zip(STRIDES, found)):
        expected = slow_target(boxes, (64, 96), stride, level, kind)
        assert torch.allclose(target, expected, atol=1e-5)
    assert any((target < 0).any() for target in found) == (kind == "heatmap")


def test_the_later_of_two_boxes_counts():
    small, large = square(8, 12, 12), square(40)
    for boxes, expected in (([large, small], 1.0), ([small, large], -1.0)):
        target = attention_targets(torch.tensor(boxes), (64, 64), STRIDES, kind="heatmap")[0]
        assert target[4, 4] == expected and target[0, 0] == -1.0


def test_area_sees_what_bilinear_misses():
    corner = torch.tensor([square(1, 8, 8)])  # a pixel in the corner of its cell
    bilinear = attention_targets(corner, (32, 32), STRIDES, kind="heatmap")[0]
    area = attention_targets(corner, (32, 32), STRIDES, kind="heatmap", downsampling="area")[0]
    assert not bilinear.any()
    assert area[2, 2] == 1 / 16 and (area > 0).sum() == 1


def test_an_image_without_boxes_has_empty_targets():
    found = attention_targets(torch.zeros(0, 4), (64, 32), STRIDES)
    assert [tuple(t.shape) for t in found] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    assert not any(t.any() for t in found)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'tinymaps' and 'bilinear'"):
        attention_targets(torch.zeros(0, 4), (32, 32), STRIDES, kind="tinymaps")


def test_selection_by_hand():
    targets = torch.zeros(3, 40)
    targets[0, :2] = 0.5
    targets[0, 2] = -1
    scores = torch.arange(40.0).flip(0).repeat(3, 1)  # falling
    scores[0, 9:12] = scores[0, 8]  # ties with the last one selected
    targets[2] = 1.0  # no background at all
    chosen = select_pixels(scores, targets, 3, 0.05)
    # two positives ask for six of the background: 3 ... 8, and the ties 9 ... 11
    assert chosen[0].nonzero().flatten().tolist() == list(range(12))
    # no positive: 5 % of 40
    assert chosen[1].nonzero().flatten().tolist() == [0, 1]
    assert chosen[2].all()


def test_selection_takes_no_more_than_there_is():
    targets = torch.ones(1, 8)
    targets[0, 6:] = 0
    assert select_pixels(torch.randn(1, 8), targets).all()


def test_dice_by_hand():
    p = torch.tensor([[0.5, 1.0, 0.9], [0.3, 0.4, 0.5]])
    positive = torch.tensor([[True, True, False], [False, False, False]])
    # 1 - 2 (1.5 + 1) / ((1.25 + 1) + (2 + 1)); without objects 1 - 2 / 2
    assert torch.allclose(dice_loss(p, positive), torch.tensor([1 - 5 / 5.25, 0.0]))


def maps(batch, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, 1, size[0] // s, size[1] // s) for s in STRIDES]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in sizes]


def test_loss_equals_the_formula_of_probabilities():
    boxes = [torch.tensor([square(9, 3, 5), square(60, 30, 2)]), torch.zeros(0, 4)]
    logits = maps(2, (64, 96))
    loss = AttentionLoss(STRIDES, kind="heatmap", bce_weight=0.5, dice_weight=2.0)
    found = loss(logits, boxes)
    bce = dice = 0.0
    for level, x in enumerate(logits):
        targets = torch.stack(
            [attention_targets(b, (64, 96), STRIDES, kind="heatmap")[level] for b in boxes]
        )
        a = x.sigmoid()[:, 0]
        total = number = 0
        for p, g in zip(a.flatten(1), targets.flatten(1)):
            background = [(float(v.detach()), i) for i, v in enumerate(p) if g[i] == 0]
            positives = int((g > 0).sum())
            k = min(3 * positives, len(background)) if positives else max(len(p) // 20, 1)
            hard = {i for _, i in sorted(background, reverse=True)[:k]}
            for i, v in enumerate(p):
                if g[i] != 0 or i in hard:
                    weight = 3 if g[i] < 0 else 1
                    total += weight * F.binary_cross_entropy(v, g[i].clamp(min=0))
                    number += 1
            m = g > 0
            top = 2 * (p[m].sum() + 1)
            dice += (1 - top / (p[m].square().sum() + 1 + m.sum() + 1)) / len(a)
        bce += total / number
    assert torch.allclose(found["loss_attention_bce"], 0.5 * bce, atol=1e-5)
    assert torch.allclose(found["loss_attention_dice"], 2.0 * dice, atol=1e-5)


def test_gradients_are_finite_for_certain_predictions():
    for value in (-200.0, 200.0):
        logits = [torch.full_like(x, value).requires_grad_() for x in maps(1, (32, 32))]
        losses = AttentionLoss()(logits, [torch.tensor([square(6, 8, 8)])])
        sum(losses.values()).backward()
        assert all(x.grad.isfinite().all() for x in logits)


def test_loss_without_any_box_is_finite_and_pushes_attention_down():
    logits = maps(2, (64, 64))
    losses = AttentionLoss()(logits, [torch.zeros(0, 4)] * 2)
    assert losses["loss_attention_dice"] == 0 and losses["loss_attention_bce"] > 0
    losses["loss_attention_bce"].backward()
    assert all((x.grad >= 0).all() and x.grad.any() for x in logits)


def test_descending_makes_attention_show_the_boxes():
    boxes = [torch.tensor([square(10, 12, 20)])]
    logits = maps(1, (64, 64))
    loss = AttentionLoss(bce_weight=1.0)
    for _ in range(200):
        total = sum(loss(logits, boxes).values())
        for x, g in zip(logits, torch.autograd.grad(total, logits)):
            x.data -= 20 * g
    first = logits[0].sigmoid()[0, 0]
    target = attention_targets(boxes[0], (64, 64), STRIDES, kind="heatmap")[0]
    assert first[target > 0.5].min() > 0.9
    assert first[target == 0].max() < 0.6


def test_a_wrong_number_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"3 attention maps for strides \(4, 8, 16, 32\)"):
        AttentionLoss()(maps(1, (32, 32))[:3], [torch.zeros(0, 4)])
