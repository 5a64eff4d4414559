"""Windows become whole images: shifting, suppression, counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsd2.evaluation.box_records import (
    BoxMerging,
    BoxRecord,
    assemble_boxes,
    make_box_record,
    merge_windows,
)

TILE = {"x": 100, "y": 50, "width": 64, "height": 64}


def record(image_id: str, tile: tuple, boxes: list, scores: list, classes: list) -> BoxRecord:
    return BoxRecord(
        image_id, tile, np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(scores, dtype=np.float64), np.array(classes, dtype=np.int64),
    )  # fmt: skip


def test_boxes_are_shifted_and_what_is_not_finite_is_counted() -> None:
    boxes = torch.tensor([[1.0, 2, 5, 6], [0, 0, float("nan"), 4], [0, 0, 3, 3]])
    made = make_box_record(
        "a", TILE, boxes, torch.tensor([0.5, 0.9, 0.04]), torch.tensor([0, 0, 1]), score_floor=0.05
    )
    assert made.boxes.tolist() == [[101, 52, 105, 56]]
    assert made.tile == (100, 50, 64, 64)
    assert (made.num_non_finite, made.num_below_floor) == (1, 1)


def test_suppression_is_by_class_and_in_the_order_of_the_scores() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60.0]])
    keep = merge_windows(
        boxes, np.array([0.5, 0.9, 0.7, 0.6]), np.array([0, 0, 1, 0]), BoxMerging()
    )
    assert keep.tolist() == [1, 2, 3]
    everything = merge_windows(
        boxes, np.array([0.5, 0.9, 0.7, 0.6]), np.array([0, 0, 1, 0]), BoxMerging(None)
    )
    assert everything.tolist() == [1, 2, 3, 0]


def test_legacy_pixels_suppress_more_of_the_tiny() -> None:
    # 4 x 4 px, moved by 1.5: 10 / 22 of IoU, but with sides of 5 px 17.5 / 32.5.
    boxes = np.array([[0, 0, 4, 4], [1.5, 0, 5.5, 4.0]])
    scores, classes = np.array([0.9, 0.8]), np.array([0, 0])
    assert len(merge_windows(boxes, scores, classes, BoxMerging())) == 2
    assert len(merge_windows(boxes, scores, classes, BoxMerging(legacy_pixels=True))) == 1


def test_whole_images_are_left_alone_and_repetitions_count_once() -> None:
    twins = record("whole", (), [[0, 0, 9, 9], [0, 0, 9, 9]], [0.5, 0.4], [0, 0])
    left = record("tiled", (0, 0, 64, 64), [[10, 10, 20, 20]], [0.6], [0])
    right = record("tiled", (30, 0, 64, 64), [[10, 10, 20, 21]], [0.7], [0])
    index = {"whole": 1, "tiled": 0}
    for records in ([twins, left, right, left], [right, left, left, twins]):
        found, counts = assemble_boxes(records, index, BoxMerging())
        assert found.image_index.tolist() == [0, 1, 1]
        assert found.scores.tolist() == [0.7, 0.5, 0.4]
        assert counts["outputs_seen_more_than_once"] == 1
        assert counts["images_merged_from_windows"] == 1
        assert counts["windows_predicted"] == 2
        assert counts["detections_scored"] == 3


def test_nothing_at_all() -> None:
    found, counts = assemble_boxes([], {}, BoxMerging())
    assert found.boxes.shape == (0, 4)
    assert counts["detections_scored"] == 0


def test_impossible_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="nms_threshold"):
        BoxMerging(nms_threshold=1.5)
