"""Masks: exact counts always, weights are probabilities, objects are treated as asked for."""

import math

import pytest
import torch

from rsd2.projects.object_jepa.masking import LOSS_SETS, MODES, CoverageRule, MaskSampler
from rsd2.testing import random_rotated_boxes

GRID, SIZE = (12, 14), 8
NUM = GRID[0] * GRID[1]
WIDTH, HEIGHT = GRID[1] * SIZE, GRID[0] * SIZE


def pad(*images):
    boxes = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(x).view(-1, 5) for x in images], True)
    counts = torch.tensor([len(x) for x in images])
    return boxes.float(), torch.arange(boxes.shape[1]) < counts[:, None]


@pytest.fixture(scope="module")
def crowd():
    """No, few, many and huge objects, and one that is all of the image."""
    few = random_rotated_boxes(4, 96, 5, 30, seed=1)
    many = random_rotated_boxes(200, 110, 5, 40, seed=2)
    huge = torch.tensor([[50.0, 50, 95, 90, 10], [90, 20, 10, 8, 0]])
    whole = torch.tensor([[WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT, 0.0]])
    return pad(torch.zeros(0, 5), few, many, huge, whole)


def draw(sampler, boxes, valid, seeds=None, progress=0.0):
    seeds = range(len(boxes)) if seeds is None else seeds
    return sampler.sample(boxes, valid, grid=GRID, patch_size=SIZE, seeds=seeds, progress=progress)


def flags(index):
    return torch.zeros(len(index), NUM, dtype=torch.bool).scatter(1, index, True)


def one_image(boxes, draws=400):
    """The same image many times."""
    boxes = torch.as_tensor(boxes).float().view(1, -1, 5).expand(draws, -1, -1)
    return boxes, torch.ones(boxes.shape[:2], dtype=torch.bool)


CARS = [[20.0, 20, 14, 6, 30], [60.0, 50, 22, 9, -70], [90.0, 80, 12, 12, 0]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss_set", LOSS_SETS)
def test_counts_are_exact_whatever_an_image_shows(crowd, mode, loss_set):
    for extra in ({}, {"num_context": 20, "num_predicted": 31, "object_part": 0.5}):
        sampler = MaskSampler(mode=mode, loss_set=loss_set, **extra)
        masks = draw(sampler, *crowd)
        kept, hidden, predicted = sampler.counts(NUM)
        assert hidden == 126 and (kept, predicted) == ((20, 31) if extra else (42, 126))
        for index, count in zip(masks[:3], (kept, hidden, predicted)):
            assert index.shape == (5, count) and index.dtype == torch.int64
            assert (index.diff(dim=1) > 0).all() and index.min() >= 0 and index.max() < NUM
        assert not (flags(masks.keep) & flags(masks.hidden)).any()
        assert not (flags(masks.predicted) & ~flags(masks.hidden)).any()
        assert masks.guided.tolist() == [False, True, True, True, True]
        assert masks.weights.sum(dim=1).min() >= 1


@pytest.mark.parametrize("mode", MODES)
def test_every_patch_is_hidden_and_kept_now_and_then(mode):
    masks = draw(MaskSampler(mode=mode, num_predicted=60), *one_image(CARS, 3000))
    for index in (masks.keep, masks.hidden, masks.predicted):
        counts = torch.bincount(index.flatten(), minlength=NUM).view(GRID)
        background = ~masks.object_tokens[0].view(GRID)
        assert (counts[background] > 0).all(), "also in the last row and column"


def test_masks_depend_on_their_own_seed_alone(crowd):
    boxes, valid = crowd
    sampler = MaskSampler(num_predicted=50, object_part=0.5, instance_share=0.7)
    seeds = [5, 6, 7, 8, 9]
    together = draw(sampler, boxes, valid, seeds)
    again = draw(sampler, boxes, valid, seeds)
    order = [3, 1, 4, 0, 2]
    shuffled = draw(sampler, boxes[order], valid[order], [seeds[i] for i in order])
    for name, value in together._asdict().items():
        assert torch.equal(value, getattr(again, name))
        assert torch.equal(value[order], getattr(shuffled, name))
        for i in range(5):  # alone, without padding
            count = int(valid[i].sum())
            alone = draw(sampler, boxes[i : i + 1, :count], valid[i : i + 1, :count], [seeds[i]])
            assert torch.equal(value[i : i + 1], getattr(alone, name))
    other = draw(sampler, boxes, valid, [seed + 100 for seed in seeds])
    assert not (other.hidden == together.hidden).all(dim=1).any()


@pytest.mark.parametrize(
    ("weight", "objects", "on_objects", "elsewhere"),
    [
        (0.5, 20, 0.504, 0.756),
        (1.0, 20, 0.75, 0.75),
        (1.65, 20, 0.897, 0.746),
        (math.e, 20, 0.976, 0.744),
        (1.65, 309, 0.850, 0.685),
        (math.e, 309, 0.933, 0.631),
    ],
)
def test_weights_give_the_shares_that_were_measured(weight, objects, on_objects, elsewhere):
    """Measured once by an independent simulation: 784 patches, 588 hidden."""
    index = torch.randperm(784, generator=torch.Generator().manual_seed(0))[:objects]
    rows, columns = index // 28, index % 28
    boxes = torch.zeros(objects, 5)
    boxes[:, :2] = torch.stack([columns, rows], dim=1) * 16.0 + 8
    boxes[:, 2:4] = 16
    sampler = MaskSampler(mode="soft", object_weight=weight)
    draws = 150
    masks = sampler.sample(
        *one_image(boxes, draws), grid=(28, 28), patch_size=16, seeds=range(draws)
    )
    assert int(masks.object_tokens[0].sum()) == objects
    hidden = torch.zeros(draws, 784).scatter(1, masks.hidden, 1.0)
    is_object = masks.object_tokens[0]
    assert hidden[:, is_object].mean().item() == pytest.approx(on_objects, abs=0.02)
    assert hidden[:, ~is_object].mean().item() == pytest.approx(elsewhere, abs=0.005)


def test_weight_one_and_beta_zero_are_random():
    image = one_image(CARS, 20)
    random = draw(MaskSampler(mode="random"), *image).hidden
    assert torch.equal(draw(MaskSampler(mode="soft", object_weight=1.0), *image).hidden, random)
    assert torch.equal(draw(MaskSampler(mode="soft", beta=0.0), *image).hidden, random)
    assert not torch.equal(draw(MaskSampler(mode="soft", beta=3.0), *image).hidden, random)


def test_beta_hides_what_shows_more_of_an_object_more_often():
    # covers one patch wholly and the next by a quarter
    image = one_image([[13.0, 12.0, 10.0, 8.0, 0.0]])
    hidden = flags(draw(MaskSampler(mode="soft", beta=2.0), *image).hidden).double().mean(dim=0)
    whole, quarter = hidden[GRID[1] + 1].item(), hidden[GRID[1] + 2].item()
    assert whole > 0.97 > quarter + 0.05 and quarter > 0.8


def test_hard_hides_all_objects_where_there_is_room():
    masks = draw(MaskSampler(mode="hard"), *one_image(CARS, 20))
    assert flags(masks.hidden)[masks.object_tokens].all()
    few = draw(MaskSampler(mode="hard", ratio=0.05), *one_image(CARS, 20))
    assert masks.object_tokens[0].sum() > few.hidden.shape[1]
    assert few.object_tokens.gather(1, few.hidden).all()


def test_parts_of_objects_stay_visible():
    sampler = MaskSampler(mode="hard", object_part=0.5)
    boxes, valid = one_image(CARS, 50)
    masks = draw(sampler, boxes, valid)
    hidden = flags(masks.hidden)
    for car in CARS:
        own = draw(sampler, *one_image([car], 1)).object_tokens[0]
        assert (hidden[:, own].sum(dim=1) == math.ceil(own.sum() / 2)).all()
    # a tenth of 30 patches is 3, of 35 it is 4
    for rows, expected in ((6, 3), (7, 4)):
        block = [[20.0, rows * 4.0, 40.0, rows * 8.0, 0.0]]
        masks = draw(MaskSampler(mode="hard", object_part=0.1, ratio=0.1), *one_image(block, 5))
        assert (masks.object_tokens.gather(1, masks.hidden).sum(dim=1) == expected).all()
    alone = [[20.0, 20.0, 4.0, 4.0, 0.0]]  # an object of one patch is hidden wholly
    masks = draw(sampler, *one_image(alone, 20))
    assert masks.object_tokens.sum() == 20
    assert masks.object_tokens.gather(1, masks.hidden).sum() == 20


@pytest.mark.parametrize("ratio", [0.25, 0.75, 1.0])
def test_ratio_of_objects_is_exact(ratio):
    sampler = MaskSampler(mode="hard", ratio_scope="object", ratio=ratio, num_context=60)
    masks = draw(sampler, *one_image(CARS, 30))
    assert masks.keep.shape == (30, 60) and masks.hidden.shape == (30, NUM - 60)
    total = int(masks.object_tokens[0].sum())
    hidden = masks.object_tokens.gather(1, masks.hidden).sum(dim=1)
    assert (hidden == round(ratio * total)).all()


def test_some_of_many_objects_are_left_as_background():
    many = random_rotated_boxes(300, 112, 6, 30, seed=3)
    rule = CoverageRule()
    sampler = MaskSampler(mode="hard", max_object_share=0.4, ratio=0.5, rule=rule)
    masks = draw(sampler, *one_image(many, 40))
    assert masks.object_tokens[0].sum() > 0.9 * NUM
    # chosen ones take up to 0.4, the rest of the half is random, so some stay visible
    kept = masks.object_tokens.gather(1, masks.keep).sum(dim=1)
    assert (kept > 0.4 * NUM).all()
    hidden = flags(masks.hidden).double().mean(dim=0)
    assert hidden.max() < 0.95, "other objects are chosen each time"


@pytest.mark.parametrize("mode", ["hard", "soft", "mixture"])
def test_an_image_of_a_huge_object_alone_gets_blocks_like_one_without_objects(mode):
    huge = [[50.0, 50.0, 80.0, 70.0, 0.0]]
    sampler = MaskSampler(mode=mode, ratio=0.6)
    masks = draw(sampler, *one_image(huge, 60))
    own = masks.object_tokens[0]
    assert own.sum() > 0.3 * NUM
    assert flags(masks.hidden)[:, own].double().mean(dim=1).max() < 1
    plain = draw(sampler, *one_image(torch.zeros(0, 5), 60))
    assert torch.equal(masks.hidden, plain.hidden) and torch.equal(masks.keep, plain.keep)
    # beside an object that can be hidden as one it stays background
    both = draw(sampler, *one_image([*huge, [100.0, 88.0, 8.0, 8.0, 0.0]], 60))
    assert not torch.equal(both.hidden, plain.hidden)


def test_instances_are_chosen_by_their_share():
    row = [[12.0 + 24 * i, 12.0 + 24 * j, 8.0, 8.0, 0.0] for i in range(4) for j in range(4)]
    sampler = MaskSampler(mode="hard", ratio=0.1, instance_share=0.5, loss_set="uniform")
    masks = draw(sampler, *one_image(row, 300))
    hidden = masks.object_tokens.gather(1, masks.hidden).sum(dim=1).double()
    # 8 of 16 are chosen in the mean, and 17 - 8 random ones hit few others
    assert hidden.mean().item() == pytest.approx(8 + 9 * 8 / (NUM - 8), abs=0.4)


def test_objects_come_in_as_the_schedule_says():
    sampler = MaskSampler(mode="hard", object_share=(0.0, 1.0))
    image = one_image(CARS, 400)
    for progress in (0.0, 0.25, 1.0):
        guided = draw(sampler, *image, progress=progress).guided.double().mean().item()
        assert guided == pytest.approx(progress, abs=0.07)
    start = draw(sampler, *image)
    plain = draw(MaskSampler(mode="blocks", loss_set="blocks"), *one_image(torch.zeros(0, 5)))
    assert torch.equal(start.hidden, plain.hidden)
    assert torch.equal(start.predicted, plain.predicted)


def test_images_without_objects_get_blocks():
    empty = one_image(torch.zeros(0, 5), 50)
    masks = draw(MaskSampler(mode="hard", num_predicted=12), *empty)
    hidden = flags(masks.hidden).view(-1, *GRID)
    together = (hidden[:, :, 1:] & hidden[:, :, :-1]).double().mean()
    random = draw(MaskSampler(mode="random"), *empty)
    scattered = flags(random.hidden).view(-1, *GRID)
    assert together > (scattered[:, :, 1:] & scattered[:, :, :-1]).double().mean() + 0.02


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_loss_set_takes_objects_first_and_not_too_many(share):
    cars = random_rotated_boxes(25, 100, 8, 30, seed=5)
    sampler = MaskSampler(num_predicted=40, max_object_predicted=share)
    masks = draw(sampler, *one_image(cars, 30))
    counts = masks.object_tokens.gather(1, masks.predicted).sum(dim=1)
    # enough background is hidden, so that the bound is kept exactly
    assert (counts == int(share * 40)).all()
    assert (masks.weights == 1).all()


def test_loss_on_objects_alone_weighs_nothing_else(crowd):
    masks = draw(MaskSampler(num_predicted=40, loss_set="only_objects"), *crowd)
    is_object = masks.object_tokens.gather(1, masks.predicted)
    assert torch.equal(masks.weights[1:] > 0, is_object[1:])
    assert (masks.weights[0] == 1).all(), "an image without objects learns from its background"


def test_blocks_are_predicted_before_what_is_hidden_beside_them():
    sampler = MaskSampler(mode="blocks", loss_set="blocks", num_blocks=1, num_predicted=20)
    masks = draw(sampler, *one_image(torch.zeros(0, 5), 30))
    for row in masks.predicted:
        rows, columns = row // GRID[1], row % GRID[1]
        # 0.15 to 0.2 of 168 patches, at most 1.5 times as long as wide
        assert rows.max() - rows.min() < 8 and columns.max() - columns.min() < 8


def test_counts_that_cannot_be_are_refused():
    for values, message in (
        ({"num_context": 43}, "168 patches, 126 of them hidden, cannot give num_context=43"),
        ({"num_predicted": 127}, "num_predicted=127"),
        ({"ratio": 1.0}, "num_context=0"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskSampler(**values).counts(NUM)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "object"}, "mode must be one of"),
        ({"loss_set": "all"}, "loss_set must be one of"),
        ({"ratio_scope": "image"}, "ratio_scope must be one of"),
        ({"ratio": 0.0}, "ratio must lie in"),
        ({"object_part": 1.5}, "object_part must lie in"),
        ({"huge_object": 0.6}, "huge_object must lie in"),
        ({"object_share": (0.0, 1.2)}, "object_share and max_object_predicted must lie"),
        ({"object_weight": 0.0}, "object_weight must be above"),
        ({"num_blocks": -1}, "num_blocks at least 0"),
        ({"block_scale": (0.3, 0.2)}, "block_scale and block_aspect"),
        ({"ratio_scope": "object"}, "needs mode='hard', object_part=1"),
    ],
)
def test_arguments_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MaskSampler(**values)
