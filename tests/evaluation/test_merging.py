import pytest
import torch

from rsd2.evaluation import merge_tile_detections, shift_to_full_image
from rsd2.testing import random_rotated_boxes


def test_shift_is_exact_at_large_offsets():
    boxes = torch.tensor([[1.25, 2.5, 30, 10, 45]])
    moved = shift_to_full_image(boxes, 19824, 10300)
    assert moved.dtype == torch.float64
    assert moved.tolist() == [[19825.25, 10302.5, 30, 10, 45]]
    assert boxes.tolist() == [[1.25, 2.5, 30, 10, 45]]
    assert shift_to_full_image(torch.zeros(0, 5), 3, 4).shape == (0, 5)
    assert shift_to_full_image(torch.tensor([[1.25, 2, 5, 6]]), 19824, 3).tolist() == [
        [19825.25, 5, 19829, 9]
    ]
    with pytest.raises(ValueError, match=r"\(N, 5\) or \(N, 4\)"):
        shift_to_full_image(torch.zeros(2, 3), 0, 0)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_merging_equals_the_slow_judge(slow_judge, threshold):
    boxes = random_rotated_boxes(40, image_size=80, max_side=60, seed=3, dtype=torch.float64)
    boxes = torch.cat([boxes, boxes[:20] + 1])
    generator = torch.Generator().manual_seed(4)
    scores = torch.randint(0, 20, (60,), generator=generator).double() / 20
    classes = torch.randint(0, 3, (60,), generator=generator)
    kept = merge_tile_detections(boxes, scores, classes, threshold)
    expected = slow_judge.nms(boxes.tolist(), scores.tolist(), classes.tolist(), threshold)
    assert kept.dtype == torch.int64 and kept.tolist() == expected
    assert len(expected) < 60


def test_the_merging_threshold_matters():
    # Neighbours that overlap by 1/5 are two objects at the devkit's 0.3 and one at 0.1.
    boxes = torch.tensor([[5.0, 5, 12, 10, 0], [13.0, 5, 12, 10, 0]])
    scores, classes = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    assert merge_tile_detections(boxes, scores, classes, 0.1).tolist() == [0]
    assert merge_tile_detections(boxes, scores, classes, 0.3).tolist() == [0, 1]
    assert merge_tile_detections(boxes, scores, torch.tensor([0, 1]), 0.1).tolist() == [0, 1]
    assert merge_tile_detections(boxes, scores.flip(0), classes, None).tolist() == [1, 0]


def test_nothing_and_bad_arguments():
    empty = torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert merge_tile_detections(*empty).tolist() == []
    assert merge_tile_detections(*empty, iou_threshold=None).tolist() == []
    with pytest.raises(ValueError, match="shapes|must be"):
        merge_tile_detections(torch.zeros(2, 5), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        merge_tile_detections(torch.zeros(1, 5), torch.zeros(1), torch.zeros(1), 30)
