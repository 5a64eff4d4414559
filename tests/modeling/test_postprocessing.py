"""Top detections, the frame they are reported in, and NMS."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import RotatedBoxes

from rsd2.modeling import AngleCoder
from rsd2.modeling.matcher import Predictions
from rsd2.modeling.postprocessing import DetectionPostprocessor

SCALE = torch.full((4,), 100.0)


def one_image(boxes, logits):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    # the heads may describe a box by its short side first: the angle is kept as given
    turned = boxes.clone()
    turned[:, 2:4] = turned[:, 2:4].sort(dim=1, descending=True).values
    angles = AngleCoder().encode(turned) * 10
    return Predictions(
        torch.tensor([logits], dtype=torch.float32), boxes[None, :, :4], angles[None]
    )


def process(predictions, output_size=(100, 100), **options):
    post = DetectionPostprocessor(AngleCoder(), **options)
    return post(predictions, 0, SCALE, (100, 100), output_size)


BOXES = [(0.3, 0.4, 0.2, 0.1, 30.5), (0.7, 0.6, 0.1, 0.3, 10.5)]
LOGITS = [[2.0, -1.0], [0.5, 1.0]]


def test_best_pairs_by_decreasing_score():
    result = process(one_image(BOXES, LOGITS), max_detections=3)
    assert isinstance(result.pred_boxes, RotatedBoxes)
    assert torch.allclose(result.scores, torch.tensor([2.0, 1.0, 0.5]).sigmoid())
    assert result.pred_classes.tolist() == [0, 1, 0]
    assert torch.allclose(
        result.pred_boxes.tensor[:2],
        # the second is tall: its long side leads, a quarter turn further
        torch.tensor([[30.0, 40.0, 20.0, 10.0, 30.5], [70.0, 60.0, 30.0, 10.0, -79.5]]),
        atol=1e-4,
    )


def test_more_detections_than_pairs():
    assert len(process(one_image(BOXES, LOGITS), max_detections=300)) == 4


def test_score_threshold_keeps_the_threshold_itself():
    assert len(process(one_image(BOXES, [[0.0, -1.0], [-9.0, 1.0]]), score_threshold=0.5)) == 2


def test_boxes_are_reported_in_the_frame_of_the_original():
    predictions = one_image(BOXES, LOGITS)
    here = process(predictions, max_detections=2)
    there = process(predictions, output_size=(250, 250), max_detections=2)
    assert there.image_size == (250, 250)
    expected = here.pred_boxes.tensor * torch.tensor([2.5, 2.5, 2.5, 2.5, 1.0])
    assert torch.allclose(there.pred_boxes.tensor, expected, atol=1e-3)


def test_boxes_without_extent_are_dropped():
    predictions = one_image(BOXES, LOGITS)
    predictions.boxes[0, 0, 3] = 0.0
    assert process(predictions).pred_classes.tolist() == [1, 0]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_nms_acts_inside_a_class_only(threshold):
    boxes = [BOXES[0], BOXES[0], BOXES[1]]
    predictions = one_image(boxes, [[3.0, -9.0], [2.0, 1.0], [-9.0, 2.5]])
    result = process(predictions, max_detections=4, nms_threshold=threshold)
    logits = result.scores.logit() * 2
    kept = list(zip(result.pred_classes.tolist(), (logits.round() / 2).tolist()))
    everything = [(0, 3.0), (1, 2.5), (0, 2.0), (1, 1.0)]
    # The second box of class 0 repeats the first; the same rectangle as class 1 stays.
    assert kept == [x for x in everything if threshold is None or x != (0, 2.0)]


def test_no_queries():
    empty = Predictions(torch.zeros(1, 0, 3), torch.zeros(1, 0, 4), torch.zeros(1, 0, 180))
    assert len(process(empty)) == 0


@pytest.mark.parametrize("nms", [None, 0.5])
@pytest.mark.parametrize("broken", ["scores", "boxes"])
def test_what_is_not_finite_passes_the_threshold_to_be_counted(broken, nms):
    predictions = one_image([BOXES[0], BOXES[0], BOXES[1]], [[2.0, -9.0], [2.0, -9.0], [3.0, -9.0]])
    clean = process(predictions, score_threshold=0.5, nms_threshold=nms)
    nan = torch.tensor(float("nan"))
    if broken == "scores":
        predictions.class_logits[0, 1, 0] = nan
    else:
        predictions.boxes[0, 1, 2] = nan
    result = process(predictions, score_threshold=0.5, nms_threshold=nms)
    finite = result.scores.isfinite() & result.pred_boxes.tensor.isfinite().all(dim=1)
    assert (~finite).sum() >= 1
    assert finite.sum() == 2 and len(clean) == (3 if nms is None else 2)
