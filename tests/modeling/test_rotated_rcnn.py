"""Rotated Faster R-CNN: the code of boxes, matching in portions, and the detector as a whole."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.anchor_generator import RotatedAnchorGenerator
from detectron2.structures import Instances, RotatedBoxes, pairwise_iou_rotated
from detectron2.utils.events import EventStorage

from rsd2.config import get_config
from rsd2.modeling import MinimumQualityMatcher, RectangleTransform
from rsd2.modeling import anchor_sampling as module
from rsd2.ops import paired_iou_rotated
from rsd2.structures import canonicalize
from rsd2.testing import random_rotated_boxes, shrink_model

WEIGHTS = (10.0, 10.0, 5.0, 5.0, 5.0)


@pytest.fixture
def transform():
    return RectangleTransform(WEIGHTS)


def boxes_pair(seed=0):
    """Sources of any orientation and naming, and targets of similar size."""
    source = random_rotated_boxes(200, 100.0, 8.0, 40.0, seed, torch.float64)
    target = random_rotated_boxes(200, 100.0, 8.0, 40.0, seed + 1, torch.float64)
    return source, target


def quarter_turned(boxes):
    """The same rectangles under another name."""
    return torch.cat([boxes[:, :2], boxes[:, [3, 2]], boxes[:, 4:] + 90], dim=1)


def test_decoding_gives_the_encoded_rectangle(transform):
    source, target = boxes_pair()
    decoded = transform.apply_deltas(transform.get_deltas(source, target), source)
    assert paired_iou_rotated(decoded, target).min() > 1 - 1e-9
    assert ((decoded[:, 4] >= -90) & (decoded[:, 4] < 90)).all()


def test_several_codes_of_one_source_decode_as_one_by_one(transform):
    source, target = boxes_pair()
    deltas = transform.get_deltas(source, target)
    both = transform.apply_deltas(torch.cat([deltas, 2 * deltas], dim=1), source)
    assert torch.equal(both[:, :5], transform.apply_deltas(deltas, source))
    assert torch.equal(both[:, 5:], transform.apply_deltas(2 * deltas, source))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_name_of_a_rectangle_does_not_change_its_code(transform, turns):
    source, target = boxes_pair()
    renamed = target
    for _ in range(turns):
        renamed = quarter_turned(renamed)
    expected = transform.get_deltas(source, target)
    torch.testing.assert_close(transform.get_deltas(source, renamed), expected)


def test_boxes_on_both_sides_of_the_wrap_are_neighbours(transform):
    source = torch.tensor([[50.0, 50, 40, 10, -90]])
    target = torch.tensor([[50.0, 50, 40, 10, 89]])
    code = transform.get_deltas(source, target)
    torch.testing.assert_close(code, torch.tensor([[0, 0, 0, 0, -WEIGHTS[4] * torch.pi / 180]]))


def test_turning_the_image_changes_no_code(transform):
    """What is pooled along a proposal's sides is the same, so must be what it is to predict."""
    source, target = boxes_pair()
    angle = torch.tensor(37.0, dtype=torch.float64)
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()

    def turn(boxes):
        x, y = boxes[:, 0], boxes[:, 1]
        centers = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=1)
        return torch.cat([centers, boxes[:, 2:4], boxes[:, 4:] + angle], dim=1)

    torch.testing.assert_close(
        transform.get_deltas(turn(source), turn(target)), transform.get_deltas(source, target)
    )


def test_a_source_without_area_is_refused(transform):
    source = torch.tensor([[5.0, 5, 0, 3, 0]])
    with pytest.raises(ValueError, match="side that is not positive"):
        transform.get_deltas(source, torch.tensor([[5.0, 5, 4, 3, 0]]))


def test_wild_codes_decode_to_finite_boxes(transform):
    boxes = transform.apply_deltas(torch.full((3, 5), 1e4), torch.tensor([[5.0, 5, 4, 3, 0]] * 3))
    assert boxes.isfinite().all()


def anchors_of(size):
    generator = RotatedAnchorGenerator(
        sizes=[[12.0]],
        aspect_ratios=[0.35, 0.8],
        angles=[-90.0, -60.0, -30.0, 0.0, 30.0, 60.0],
        strides=[4],
    )
    return generator([torch.zeros(1, 1, size, size)])[0]


@pytest.mark.parametrize("pairs", [50, 777])
def test_rotated_matching_does_not_depend_on_the_portion(monkeypatch, pairs):
    matcher = MinimumQualityMatcher([0.3, 0.6], [0, -1, 1], min_quality=0.2)
    anchors = anchors_of(8)
    boxes = RotatedBoxes(random_rotated_boxes(5, 32.0, 8.0, 20.0))
    by_table = matcher(pairwise_iou_rotated(boxes, anchors))
    monkeypatch.setattr(module, "PORTION_PAIRS", pairs)
    match, label = matcher.match(boxes, anchors)
    assert torch.equal(match, by_table[0]) and torch.equal(label, by_table[1])
    assert (label == 1).any() and (label == -1).any()


def small_detector(seed=0):
    cfg = get_config("common/models/rotated_faster_rcnn_small.py")
    cfg.model.roi_heads.num_classes = 2
    shrink_model(cfg.model)
    torch.manual_seed(seed)
    return instantiate(cfg.model)


def one_image(boxes, labels=None, size=64):
    """A dark image with bright rectangles."""
    image = torch.full((3, size, size), 40, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    for cx, cy, w, h, angle in boxes.tolist():
        radians = torch.tensor(angle).deg2rad()
        along = radians.cos() * (x - cx) - radians.sin() * (y - cy)
        across = radians.sin() * (x - cx) + radians.cos() * (y - cy)
        image[:, (along.abs() < w / 2) & (across.abs() < h / 2)] = 220
    instances = Instances((size, size))
    instances.gt_boxes = RotatedBoxes(boxes)
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else labels
    return {"image": image, "instances": instances, "height": 2 * size, "width": 2 * size}


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_beyond_the_classes_is_refused(label):
    detector = small_detector()
    batch = [one_image(torch.tensor([[30.0, 30, 20, 8, 10]]), torch.tensor([label]))]
    with pytest.raises(ValueError, match=f"a label is {label} but the model has 2 classes"):
        detector(batch)


def test_numbers_that_diverged_stop_the_training():
    detector = small_detector()
    detector.proposal_generator.rpn_head.anchor_deltas.bias.data.fill_(float("nan"))
    batch = [one_image(torch.tensor([[30.0, 30, 20, 8, 10]]))]
    with EventStorage(), pytest.raises(FloatingPointError, match="diverged"):
        detector(batch)


def test_numbers_that_diverged_are_no_detections():
    detector = small_detector().eval()
    detector.proposal_generator.rpn_head.anchor_deltas.bias.data.fill_(float("nan"))
    found = detector([one_image(torch.zeros(0, 5))])[0]["instances"]
    assert len(found) == 0


def test_learns_a_slanted_box_and_gives_it_in_the_frame_of_the_original_image():
    truth = torch.tensor([[30.0, 34.0, 30.0, 10.0, 35.0]])
    detector, batch = small_detector(), [one_image(truth)]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    with EventStorage():
        for _ in range(120):
            loss = sum(detector(batch).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
            optimizer.step()
        # Batch statistics of the one image, not their slow average.
        for part in detector.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 1.0
        with torch.no_grad():
            detector(batch)
    found = detector.eval()(batch)[0]["instances"]
    boxes = found.pred_boxes.tensor
    assert torch.equal(canonicalize(boxes), boxes)
    twice = truth * torch.tensor([2.0, 2, 2, 2, 1])
    assert paired_iou_rotated(boxes[:1], twice).item() > 0.6
    assert found.scores[0] > 0.5
