"""Windows become whole images: shifting, dropping, suppression, counting; for both kinds of box."""

import itertools
import random

import numpy as np
import pytest
import torch

from rsd2.evaluation import BoxMerging, Detections, GroundTruth, score_detections
from rsd2.evaluation.records import RotatedBoxMerging, assemble_outputs, make_record

TILES = [
    {"source_id": "", "x": x, "y": y, "width": 100, "height": 100}
    for y, x in itertools.product((0, 60), (0, 60))
]
both_kinds = pytest.mark.parametrize("merging", [BoxMerging(), RotatedBoxMerging()])


def box(merging, x, y, w, h):
    """A box of the kind that is merged, from its corner and sides."""
    if isinstance(merging, RotatedBoxMerging):
        return [x + w / 2, y + h / 2, w, h, 0]
    return [x, y, x + w, y + h]


def record(image_id, tile, detections, columns=5, **options):
    """Detections are (class, score, box)."""
    columns = len(detections[0][2]) if detections else columns
    return make_record(
        image_id,
        tile,
        torch.tensor([d[2] for d in detections], dtype=torch.float32).reshape(-1, columns),
        torch.tensor([d[1] for d in detections], dtype=torch.float32),
        torch.tensor([d[0] for d in detections], dtype=torch.int64),
        **options,
    )


def assemble(records, merging, names=("a",), **options):
    return assemble_outputs(records, {name: k for k, name in enumerate(names)}, merging, **options)


@both_kinds
def test_windows_are_shifted_and_merged(merging):
    # One object in the overlap of two windows, seen by both; another that only one of them sees.
    left = record("a", TILES[0], [(0, 0.8, box(merging, 70, 25, 20, 10)),
                                  (0, 0.7, box(merging, 20, 20, 8, 4))])  # fmt: skip
    right = record("a", TILES[1], [(0, 0.9, box(merging, 10.5, 25, 20, 10))])
    merged = assemble([left, right], merging)
    expected = [box(merging, 70.5, 25, 20, 10), box(merging, 20, 20, 8, 4)]
    assert merged.detections.boxes.tolist() == expected
    np.testing.assert_allclose(merged.detections.scores, [0.9, 0.7], atol=1e-7)
    assert merged.counts["windows_predicted"] == 2
    assert merged.counts["images_merged_from_windows"] == 1
    assert merged.counts["detections_predicted"] == 3
    assert merged.counts["detections_scored"] == 2
    assert merged.seen == {("a", (0, 0, 100, 100)), ("a", (60, 0, 100, 100))}
    assert len(assemble([left, right], type(merging)(None)).detections.scores) == 3


def test_the_suppression_changes_the_score():
    """Copies in an overlap cost precision; two real neighbours that share a fifth cost recall."""
    records = [
        record("a", TILES[0], [(0, 0.9, [80, 35, 10, 10, 0]), (0, 0.5, [15, 15, 10, 10, 0])]),
        record("a", TILES[1], [(0, 0.8, [20, 35, 10, 10, 0])]),
    ]
    near = [record("a", TILES[0], [(0, 0.9, [5, 5, 12, 10, 0]), (0, 0.8, [13, 5, 12, 10, 0])])]

    def score(corners, records, threshold):
        square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
        zeros = np.zeros(2, dtype=np.int64)
        polygons = np.array([square * (w, 10) + (x, y) for x, y, w in corners])
        truth = GroundTruth(("a",), ("plane",), zeros, zeros, polygons, zeros)
        merged = assemble(records, RotatedBoxMerging(threshold))
        return score_detections(truth, Detections(*merged.detections))

    places = [(75, 30, 10), (10, 10, 10)]
    assert score(places, records, 0.1).ap[0, 0] == 1
    assert score(places, records, None).ap[0, 0] < 0.9
    neighbours = [(-1, 0, 12), (7, 0, 12)]
    recalls = [score(neighbours, near, threshold).recall[0, 0] for threshold in (0.1, 0.3)]
    assert recalls == [0.5, 1.0]


@both_kinds
def test_whole_images_are_left_alone_and_repetitions_count_once(merging):
    same = [(0, 0.5, box(merging, 0, 0, 9, 9)), (0, 0.9, box(merging, 0, 0, 9, 9))]
    whole = record("whole", None, same)
    left = record("tiled", TILES[0], [(0, 0.6, box(merging, 70, 10, 10, 10))])
    right = record("tiled", TILES[1], [(0, 0.7, box(merging, 10, 10, 10, 11))])
    for records in ([whole, left, right, left], [right, left, left, whole]):
        merged = assemble(records, merging, ("tiled", "whole"))
        assert merged.detections.image_index.tolist() == [0, 1, 1]
        np.testing.assert_allclose(merged.detections.scores, [0.7, 0.9, 0.5], atol=1e-7)
        assert merged.counts["outputs_seen_more_than_once"] == 1
        assert merged.counts["images_merged_from_windows"] == 1
        assert merged.counts["windows_predicted"] == 2


@both_kinds
def test_bad_numbers_and_low_scores_are_counted(merging):
    nan, good = float("nan"), box(merging, 0, 0, 10, 10)
    rows = [(0, 0.9, good), (0, nan, good), (0, 0.8, [5, nan, *good[2:]])]
    rows += [(0, 0.7, [5, 5, float("inf"), *good[3:]]), (0, 0.04, good), (0, 0.05, good)]
    kept = record("a", None, rows, score_floor=np.float32(0.05).item())
    assert len(kept.scores) == 2
    counts = assemble([kept], merging).counts
    assert counts["detections_predicted"] == 6
    assert counts["detections_dropped_not_finite"] == 3
    assert counts["detections_dropped_below_score_floor"] == 1


def test_limit_is_per_whole_image_and_keeps_the_best():
    rows = [(0, 0.1 * k, [50 * k, 5, 10, 10, 0]) for k in range(1, 6)]
    records = [record("a", TILES[0], rows), record("a", TILES[3], rows), record("b", None, rows)]
    kept = assemble(records, RotatedBoxMerging(), ("b", "a"), max_detections=3).detections
    assert kept.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(kept.scores, [0.5, 0.4, 0.3, 0.5, 0.5, 0.4], atol=1e-6)


@both_kinds
def test_nothing_at_all(merging):
    empty = assemble([], merging)
    assert empty.detections.boxes.shape == (0, merging.columns)
    assert empty.counts["images_predicted"] == empty.counts["detections_scored"] == 0
    silent = record("a", None, [], merging.columns)
    assert len(assemble([silent], merging).detections.scores) == 0


@both_kinds
def test_suppression_is_by_class_and_in_the_order_of_the_scores(merging):
    corners = [(0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 10), (50, 50, 10, 10)]
    boxes = np.array([box(merging, *row) for row in corners], dtype=np.float64)
    others = np.array([0.5, 0.9, 0.7, 0.6]), np.array([0, 0, 1, 0])
    assert merging.choose(boxes, *others).tolist() == [1, 2, 3]
    assert type(merging)(None).choose(boxes, *others).tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match="nms_threshold"):
        type(merging)(nms_threshold=1.5)


def test_legacy_pixels_suppress_more_of_the_tiny():
    # 4 x 4 px, moved by 1.5: 10 / 22 of IoU, but with sides of 5 px 17.5 / 32.5.
    boxes = np.array([[0, 0, 4, 4], [1.5, 0, 5.5, 4.0]])
    scores, classes = np.array([0.9, 0.8]), np.array([0, 0])
    assert len(BoxMerging().choose(boxes, scores, classes)) == 2
    assert len(BoxMerging(legacy_pixels=True).choose(boxes, scores, classes)) == 1


def test_windows_against_the_slow_judge(slow_judge, random_case):
    """Random outputs in windows, merged and scored twice; the records come in any order."""
    for seed in range(25):
        objects, detections = random_case(seed, num_images=2)
        rng = random.Random(seed)
        names, records, slow = ["x", "a"], [], []
        for image in (0, 1):
            for tile in TILES:
                x, y = tile["x"], tile["y"]
                seen = [
                    (label, score, [box[0] - x, box[1] - y, *box[2:]])
                    for number, label, score, box in detections
                    if number == image and x <= box[0] < x + 100 and y <= box[1] < y + 100
                ]
                records.append(record(names[image], tile, seen))
            # The slow judge lists windows by (x, y), the order that breaks ties.
            own = [records[-4:][k] for k in (0, 2, 1, 3)]
            rows = [
                row
                for one in own
                for row in zip(one.boxes.tolist(), one.scores.tolist(), one.classes.tolist())
            ]
            kept = [rows[k] for k in slow_judge.nms(*map(list, zip(*rows)), 0.3)] if rows else []
            slow += [(image, c, score, slow_judge.corners_of(b)) for b, score, c in kept]
        rng.shuffle(records)
        merged = assemble(records, RotatedBoxMerging(0.3), ("x", "a")).detections
        assert len(merged.scores) == len(slow)
        truth = GroundTruth(
            image_ids=tuple(names),
            class_names=("c0", "c1", "c2", "c3"),
            image_index=np.array([o[0] for o in objects], dtype=np.int64),
            class_index=np.array([o[1] for o in objects], dtype=np.int64),
            polygons=np.array([o[2] for o in objects]).reshape(-1, 4, 2),
            difficult=np.array([o[3] for o in objects], dtype=np.int64),
        )
        expected = slow_judge.scores(objects, slow, 4, (0.3, 0.5, 0.75), "voc07", "v1.0")
        got = score_detections(truth, Detections(*merged), iou_thresholds=(0.3, 0.5, 0.75))
        np.testing.assert_allclose(got.ap, expected, rtol=0, atol=1e-9, equal_nan=True)
