"""Denoising queries: published shapes, bounds of the noise, and who may see whom."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_convert

from rsd2.modeling import DenoisingQueries, DetectorQuirks

NO_NOISE = {"label_noise": 0.0, "box_noise": 0.0, "angle_noise": 0.0}


@pytest.fixture
def objects(make_targets):
    def draw(count, seed=0, angle=None, num_classes=4):
        generator = torch.Generator().manual_seed(seed)
        boxes = torch.rand(count, 5, generator=generator)
        boxes[:, :2] = boxes[:, :2] * 0.4 + 0.3
        boxes[:, 2:4] = boxes[:, 2:4] * 0.2 + 0.1
        boxes[:, 4] = boxes[:, 4] * 100 - 50 if angle is None else angle
        return make_targets(boxes, torch.randint(num_classes, (count,), generator=generator))

    return draw


@pytest.mark.parametrize(
    ("counts", "slots", "groups"),
    [
        ((1, 0), 200, 100),
        ((3, 5), 200, 20),
        ((50, 10), 200, 2),
        ((51, 3), 102, 1),
        ((120, 400), 800, 1),
    ],
)
def test_published_shapes(objects, counts, slots, groups):
    queries = DenoisingQueries(4, 8, 100)
    targets = [objects(n, seed=n) for n in counts]
    batch = queries(targets, 7)
    assert batch.num_groups == groups
    assert batch.content.shape == (2, slots, 8)
    assert batch.boxes.shape == (2, slots, 4)
    assert batch.angles.shape == (2, slots)
    assert batch.attention_mask.shape == (slots + 7, slots + 7)
    for i, n in enumerate(counts):
        where, source = batch.matches[i]
        assert len(where) == n * groups
        assert (~batch.empty_slots[i]).sum() == 2 * n * groups
        assert torch.equal(source.bincount(minlength=n), torch.full((n,), groups))


def test_no_object_at_all_gives_no_queries(objects):
    assert DenoisingQueries(4, 8)([objects(0), objects(0)], 7) is None


def test_without_noise_both_halves_of_every_group_are_the_objects(objects):
    queries = DenoisingQueries(4, 8, 12, **NO_NOISE)
    targets = [objects(3), objects(2, seed=1)]
    batch = queries(targets, 5)
    assert batch.num_groups == 4
    for i, target in enumerate(targets):
        content = queries.label_embedding(target.labels)
        for half in range(8):
            slots = half * 3 + torch.arange(len(target))
            assert torch.allclose(batch.boxes[i, slots], target.boxes[:, :4], atol=1e-6)
            assert torch.equal(batch.angles[i, slots], target.boxes[:, 4])
            assert torch.equal(batch.content[i, slots], content)
    # the second image has one object fewer: its third slots are empty
    assert torch.equal(batch.empty_slots[1].nonzero()[:, 0], torch.arange(2, 24, 3))
    assert batch.content[1, 2].abs().max() == 0


def test_positives_come_first_in_every_group(objects):
    batch = DenoisingQueries(4, 8, 6)([objects(3)], 1)
    where, source = batch.matches[0]
    assert where.tolist() == [0, 1, 2, 6, 7, 8]
    assert source.tolist() == [0, 1, 2, 0, 1, 2]


def corner_shift(batch, target, repeats):
    """Shift of x1, y1, x2, y2 in units of half a side, (slots, 4)."""
    boxes = batch.boxes[0]
    true = target.boxes[:, :4].repeat(repeats, 1)
    half = true[:, 2:].repeat(1, 2) / 2
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    before = torch.cat([true[:, :2] - true[:, 2:] / 2, true[:, :2] + true[:, 2:] / 2], dim=1)
    return ((corners - before) / half).abs()


def test_bounds_of_the_noise(objects):
    target = objects(100)
    batch = DenoisingQueries(4, 8, 100, label_noise=0.0, box_noise=0.4, angle_noise=0.02)(
        [target], 1
    )
    shift = corner_shift(batch, target, 2)
    positive, negative = shift[:100], shift[100:]
    assert positive.max() <= 0.4 + 1e-4
    assert negative.min() >= 0.4 - 1e-4
    assert negative.max() <= 0.8 + 1e-4
    # not constant: the range is used
    assert positive.min() < 0.05
    assert positive.max() > 0.35
    turn = (batch.angles[0] - target.boxes[:, 4].repeat(2)).abs()
    assert turn[:100].max() <= 3.6 + 1e-4
    assert turn[100:].min() >= 3.6 - 1e-4
    assert turn[100:].max() <= 7.2 + 1e-4


def test_noise_keeps_boxes_inside_and_angles_canonical(make_targets):
    boxes = torch.tensor([[0.01, 0.99, 0.5, 0.4, 89.9], [0.5, 0.5, 1.4, 1.4, -90.0]]).repeat(50, 1)
    batch = DenoisingQueries(1, 8, 100)([make_targets(boxes)], 1)
    assert batch.boxes.min() > 0
    assert batch.boxes.max() < 1
    corners = box_convert(batch.boxes, "cxcywh", "xyxy")
    assert corners.min() > -1e-4
    assert corners.max() < 1 + 1e-4
    assert batch.angles.min() >= -90
    assert batch.angles.max() < 90


def test_official_angle_noise_multiplies_and_spares_zero(objects):
    quirks = DetectorQuirks(multiplied_angle_noise=True)
    queries = DenoisingQueries(4, 8, 100, angle_noise=0.02, quirks=quirks)
    assert queries([objects(30, angle=0.0)], 1).angles.abs().max() == 0
    turn = (queries([objects(30, angle=40.0)], 1).angles[0] - 40.0).abs().view(-1, 2, 30)
    assert turn[:, 0].max() <= 0.8 + 1e-4
    assert turn[:, 1].min() >= 0.8 - 1e-4
    assert turn[:, 1].max() <= 1.6 + 1e-4
    ours = DenoisingQueries(4, 8, 100, angle_noise=0.02)([objects(30, angle=0.0)], 1)
    assert ours.angles.abs().max() > 1


def test_share_of_flipped_labels(objects):
    queries = DenoisingQueries(1000, 1, 2000, label_noise=0.25)
    with torch.no_grad():
        queries.label_embedding.weight.copy_(torch.arange(1000.0)[:, None])
    target = objects(100, num_classes=1000)
    labels = queries([target], 1).content[0, :, 0].long()
    flipped = labels != target.labels.repeat(len(labels) // 100)
    assert 0.22 < flipped.float().mean() < 0.28


def test_attention_mask(objects):
    batch = DenoisingQueries(4, 8, 6)([objects(2), objects(1)], 5)
    slots, group_size = 12, 4
    mask = batch.attention_mask
    assert mask[slots:, :slots].all(), "matching queries see denoising ones"
    assert not mask[:, slots:].any(), "somebody cannot see the matching queries"
    blocks = mask[:slots, :slots].view(3, group_size, 3, group_size)
    for a in range(3):
        for b in range(3):
            assert bool(blocks[a, :, b].all()) == (a != b)
            assert bool(blocks[a, :, b].any()) == (a != b)


def run(detector, inputs, change=None):
    """Losses of one batch, with the content of empty slots changed if asked."""
    detector.train()
    torch.manual_seed(3)
    if change is None:
        return detector(inputs)
    forward = detector.denoising.forward

    def changed(targets, num_matching):
        batch = forward(targets, num_matching)
        batch.content = torch.where(batch.empty_slots[..., None], change, batch.content)
        return batch

    detector.denoising.forward = changed
    try:
        return detector(inputs)
    finally:
        del detector.denoising.forward


@pytest.mark.parametrize("official", [False, True])
def test_empty_slots_count_only_in_the_official_program(build_detector, make_input, official):
    detector = build_detector(quirks=DetectorQuirks(trained_empty_slots=official))
    for head in detector.heads.class_heads:
        torch.nn.init.zeros_(head.bias)  # at the prior of 0.01, background hardly costs anything
    boxes = [(20.0, 20.0, 16.0, 8.0, 30.0), (40.0, 44.0, 12.0, 10.0, -60.0)]
    inputs = [make_input(boxes, [0, 1]), make_input(boxes[:1], [2], seed=1)]
    change = 5 * torch.randn(32)
    plain, changed = run(detector, inputs), run(detector, inputs, change)
    same = [torch.allclose(plain[key], changed[key], rtol=1e-5) for key in plain]
    denoising = [torch.allclose(plain[k], changed[k], rtol=1e-5) for k in plain if "_dn" in k]
    if official:
        assert not all(denoising)
    else:
        assert all(same)


def test_gradient_reaches_the_label_embedding(objects):
    queries = DenoisingQueries(4, 8, 6)
    queries([objects(2)], 1).content.sum().backward()
    assert queries.label_embedding.weight.grad.abs().sum() > 0
