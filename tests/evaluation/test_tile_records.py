import itertools
import random

import numpy as np
import torch

from rsd2.evaluation import score_detections
from rsd2.evaluation.scoring.dota import GroundTruth
from rsd2.evaluation.tile_records import assemble_outputs, make_record

TILES = [
    {"source_id": "", "x": x, "y": y, "width": 100, "height": 100}
    for y, x in itertools.product((0, 60), (0, 60))
]


def record(image_id, tile, detections, **options):
    """Detections are (class, score, box)."""
    return make_record(
        image_id,
        tile,
        torch.from_numpy(np.array([d[2] for d in detections], dtype=np.float32).reshape(-1, 5)),
        torch.tensor([d[1] for d in detections], dtype=torch.float32),
        torch.tensor([d[0] for d in detections], dtype=torch.int64),
        **options,
    )


def test_tiles_are_shifted_and_merged():
    # One object in the overlap of two tiles, seen by both; another that only one tile sees.
    left = record("a", TILES[0], [(0, 0.8, [80, 30, 20, 10, 0]), (0, 0.7, [20, 20, 8, 4, 30])])
    right = record("a", TILES[1], [(0, 0.9, [20.5, 30, 20, 10, 0])])
    merged = assemble_outputs([left, right], {"a": 0})
    assert merged.detections.boxes.tolist() == [[80.5, 30, 20, 10, 0], [20, 20, 8, 4, 30]]
    np.testing.assert_allclose(merged.detections.scores, [0.9, 0.7], atol=1e-7)
    assert merged.counts["tiles_predicted"] == 2
    assert merged.counts["detections_predicted"] == 3
    assert merged.counts["detections_scored"] == 2
    unmerged = assemble_outputs([left, right], {"a": 0}, nms_threshold=None)
    assert len(unmerged.detections) == 3


def test_border_duplicates_lower_the_score_unless_merged():
    square = [(0, 0), (10, 0), (10, 10), (0, 10)]
    truth = GroundTruth(
        image_ids=("a",),
        class_names=("plane",),
        image_index=np.zeros(2, dtype=np.int64),
        class_index=np.zeros(2, dtype=np.int64),
        polygons=np.array([square, square], dtype=float) + [[[75, 30]], [[10, 10]]],
        difficult=np.zeros(2, dtype=np.int64),
    )
    records = [
        record("a", TILES[0], [(0, 0.9, [80, 35, 10, 10, 0]), (0, 0.5, [15, 15, 10, 10, 0])]),
        record("a", TILES[1], [(0, 0.8, [20, 35, 10, 10, 0])]),
    ]
    ap = {
        threshold: score_detections(
            truth, assemble_outputs(records, {"a": 0}, nms_threshold=threshold).detections
        ).ap[0, 0]
        for threshold in (0.1, None)
    }
    assert ap[0.1] == 1
    assert ap[None] < 0.9


def test_the_merging_threshold_changes_the_score():
    # Two real neighbours that overlap by a fifth.
    boxes = np.array([[5.0, 5, 12, 10, 0], [13.0, 5, 12, 10, 0]])
    corners = np.array(
        [[(-1, 0), (11, 0), (11, 10), (-1, 10)], [(7, 0), (19, 0), (19, 10), (7, 10)]]
    )
    zeros = np.zeros(2, dtype=np.int64)
    truth = GroundTruth(("a",), ("plane",), zeros, zeros, corners.astype(float), zeros)
    records = [record("a", TILES[0], [(0, 0.9, boxes[0]), (0, 0.8, boxes[1])])]
    recalls = [
        score_detections(
            truth, assemble_outputs(records, {"a": 0}, nms_threshold=threshold).detections
        ).recall[0, 0]
        for threshold in (0.1, 0.3)
    ]
    assert recalls == [0.5, 1.0]


def test_whole_images_are_left_alone():
    same = [(0, 0.5, [5, 5, 10, 10, 0]), (0, 0.9, [5, 5, 10, 10, 0])]
    merged = assemble_outputs([record("a", None, same)], {"a": 0}, nms_threshold=0.1)
    np.testing.assert_allclose(merged.detections.scores, [0.9, 0.5])
    assert merged.counts["images_merged_from_tiles"] == 0


def test_repeated_inputs_count_once():
    one = record("a", TILES[0], [(0, 0.5, [5, 5, 10, 10, 0])])
    once = assemble_outputs([one], {"a": 0}, nms_threshold=None)
    twice = assemble_outputs([one, one], {"a": 0}, nms_threshold=None)
    assert len(once.detections) == len(twice.detections) == 1
    assert twice.counts["outputs_seen_more_than_once"] == 1
    whole = record("b", None, [(0, 0.5, [5, 5, 10, 10, 0])])
    assert len(assemble_outputs([whole, whole, one], {"a": 0, "b": 1}).detections) == 2


def test_bad_numbers_and_low_scores_are_counted():
    nan = float("nan")
    rows = [
        (0, 0.9, [5, 5, 10, 10, 0]),
        (0, nan, [5, 5, 10, 10, 0]),
        (0, 0.8, [5, nan, 10, 10, 0]),
        (0, 0.7, [5, 5, float("inf"), 10, 0]),
        (0, 0.04, [50, 5, 10, 10, 0]),
        (0, 0.05, [80, 5, 10, 10, 0]),
    ]
    kept = record("a", None, rows, score_floor=np.float32(0.05))
    assert len(kept.scores) == 2 and kept.num_non_finite == 3 and kept.num_below_floor == 1
    counts = assemble_outputs([kept], {"a": 0}).counts
    assert counts["detections_predicted"] == 6
    assert counts["detections_dropped_not_finite"] == 3
    assert counts["detections_dropped_below_score_floor"] == 1


def test_limit_is_per_full_image_and_keeps_the_best():
    rows = [(0, 0.1 * k, [50 * k, 5, 10, 10, 0]) for k in range(1, 6)]
    records = [record("a", TILES[0], rows), record("a", TILES[3], rows), record("b", None, rows)]
    kept = assemble_outputs(records, {"b": 0, "a": 1}, max_detections=3).detections
    assert kept.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(kept.scores, [0.5, 0.4, 0.3, 0.5, 0.5, 0.4], atol=1e-6)


def test_no_records():
    empty = assemble_outputs([], {"a": 0})
    assert len(empty.detections) == 0 and empty.counts["images_predicted"] == 0
    assert len(assemble_outputs([record("a", None, [])], {"a": 0}).detections) == 0


def test_tiles_against_the_slow_judge(slow_judge, random_case):
    """Random tiled outputs, merged and scored twice; the records come in any order."""
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
            # The slow judge lists tiles by (x, y), the order that breaks ties.
            order = [0, 2, 1, 3]
            own = records[-4:]
            rows = [
                row
                for k in order
                for row in zip(
                    own[k].classes.tolist(), own[k].scores.tolist(), own[k].boxes.tolist()
                )
            ]
            kept = slow_judge.nms(
                [r[2] for r in rows], [r[1] for r in rows], [r[0] for r in rows], 0.3
            )
            slow += [
                (image, rows[k][0], rows[k][1], slow_judge.corners_of(rows[k][2])) for k in kept
            ]
        rng.shuffle(records)
        merged = assemble_outputs(records, {"x": 0, "a": 1}, nms_threshold=0.3)
        assert len(merged.detections) == len(slow)
        truth = GroundTruth(
            image_ids=tuple(names),
            class_names=("c0", "c1", "c2", "c3"),
            image_index=np.array([o[0] for o in objects], dtype=np.int64),
            class_index=np.array([o[1] for o in objects], dtype=np.int64),
            polygons=np.array([o[2] for o in objects]).reshape(-1, 4, 2),
            difficult=np.array([o[3] for o in objects], dtype=np.int64),
        )
        expected = slow_judge.scores(objects, slow, 4, (0.3, 0.5, 0.75), "voc07", "v1.0")
        got = score_detections(truth, merged.detections, iou_thresholds=(0.3, 0.5, 0.75))
        np.testing.assert_allclose(got.ap, expected, rtol=0, atol=1e-9, equal_nan=True)
