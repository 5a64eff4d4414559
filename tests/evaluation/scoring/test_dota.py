import itertools

import numpy as np
import pytest
import torch

from rsd2.evaluation import Detections, GroundTruth, score_detections
from rsd2.evaluation.scoring.dota import COCO_IOU_THRESHOLDS, check_protocol
from rsd2.structures import boxes_to_corners, corners_to_boxes

POLICIES = ("v1.0", "v1.5", "count-all")


def make_truth(objects, num_images=1, num_classes=1):
    """Objects are (image, class, corners, difficulty)."""
    return GroundTruth(
        image_ids=tuple(f"P{i}" for i in range(num_images)),
        class_names=tuple(f"class-{i}" for i in range(num_classes)),
        image_index=np.array([o[0] for o in objects], dtype=np.int64),
        class_index=np.array([o[1] for o in objects], dtype=np.int64),
        polygons=np.array([o[2] for o in objects], dtype=np.float64).reshape(-1, 4, 2),
        difficult=np.array([o[3] for o in objects], dtype=np.int64),
    )


def make_detections(detections):
    """Detections are (image, class, score, box)."""
    return Detections(
        image_index=np.array([d[0] for d in detections], dtype=np.int64),
        class_index=np.array([d[1] for d in detections], dtype=np.int64),
        scores=np.array([d[2] for d in detections], dtype=np.float64),
        boxes=np.array([d[3] for d in detections], dtype=np.float64).reshape(-1, 5),
    )


def rectangle(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def box_of(x0, y0, x1, y1):
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0]


def ap(objects, detections, threshold=0.5, **options):
    truth = make_truth(objects, 1 + max((o[0] for o in objects), default=0))
    scores = score_detections(
        truth, make_detections(detections), iou_thresholds=[threshold], **options
    )
    return float(scores.ap[0, 0])


SQUARE = (0, 0, rectangle(0, 0, 10, 10), 0)


@pytest.mark.parametrize("seed", range(150))
def test_equals_the_slow_judge(slow_judge, random_case, seed):
    objects, detections = random_case(seed)
    truth, ours = make_truth(objects, 3, 4), make_detections(detections)
    thresholds = (0.0, 0.3, 0.5, 0.75)
    shown = [(i, c, s, slow_judge.corners_of(box)) for i, c, s, box in detections]
    for method, policy in itertools.product(("voc07", "area"), POLICIES):
        expected = slow_judge.scores(objects, shown, 4, thresholds, method, policy)
        got = score_detections(
            truth,
            ours,
            iou_thresholds=thresholds,
            ap_method=method,
            difficult_policy=policy,
        )
        np.testing.assert_allclose(got.ap, expected, rtol=0, atol=1e-9, equal_nan=True)
        if policy == "v1.0":
            assert np.isnan(got.ap[:, 2:]).all()


def test_iou_at_the_threshold_is_a_miss():
    half = box_of(0, 0, 5, 10)
    assert ap([SQUARE], [(0, 0, 0.9, half)], 0.5) == 0
    assert ap([SQUARE], [(0, 0, 0.9, half)], np.nextafter(0.5, 0) - 1e-9) == 1


def test_overlap_is_with_the_quadrilateral_not_its_rectangle(slow_judge):
    trapezoid = [(0, 0), (20, 0), (12, 10), (8, 10)]
    box = box_of(0, 0, 20, 10)
    assert slow_judge.overlap(trapezoid, slow_judge.corners_of(box)) == pytest.approx(0.6)
    as_rectangle = corners_to_boxes(torch.tensor(trapezoid, dtype=torch.float64))
    rectangle_of_it = boxes_to_corners(as_rectangle).tolist()
    assert ap([(0, 0, trapezoid, 0)], [(0, 0, 1, box)], 0.75) == 0
    assert ap([(0, 0, rectangle_of_it, 0)], [(0, 0, 1, box)], 0.75) == 1


def test_difficulty_policies():
    objects = [(0, 0, rectangle(50 * k, 0, 50 * k + 10, 10), k) for k in range(3)]
    found_normal = [(0, 0, 0.5, box_of(0, 0, 10, 10))]
    assert ap(objects, found_normal, ap_method="area", difficult_policy="v1.0") == 1
    assert ap(objects, found_normal, ap_method="area", difficult_policy="v1.5") == 1 / 2
    half = pytest.approx(1 / 3)
    assert ap(objects, found_normal, ap_method="area", difficult_policy="count-all") == half
    # Better-scored detections of objects that do not count are neither right nor wrong.
    difficult = [(0, 0, 0.9, box_of(50, 0, 60, 10)), (0, 0, 0.8, box_of(50, 0, 60, 10))]
    truncated = [(0, 0, 0.7, box_of(100, 0, 110, 10))]
    everything = difficult + truncated + found_normal
    assert ap(objects, everything, ap_method="area", difficult_policy="v1.0") == 1
    v15 = ap(objects, everything, ap_method="area", difficult_policy="v1.5")
    assert v15 == pytest.approx(0.5 + 0.5 * 2 / 3)
    count_all = ap(objects, everything, ap_method="area", difficult_policy="count-all")
    assert count_all == pytest.approx((1 + 0.75 + 0.75) / 3)


def test_a_detection_may_only_take_its_best_object():
    # Both detections overlap the first object best; COCO's rule would give one the second object.
    objects = [SQUARE, (0, 0, rectangle(0, 2, 10, 12), 0)]
    detections = [(0, 0, 0.9, box_of(0, 0, 10, 10)), (0, 0, 0.8, box_of(0, 0.9, 10, 10.9))]
    assert ap(objects, detections, ap_method="area") == 0.5


def test_second_detection_of_an_object_is_wrong():
    objects = [SQUARE, (0, 0, rectangle(50, 0, 60, 10), 0)]
    detections = [
        (0, 0, 0.9, box_of(0, 0, 10, 10)),
        (0, 0, 0.8, box_of(0, 0, 10, 10)),
        (0, 0, 0.7, box_of(50, 0, 60, 10)),
    ]
    assert ap(objects, detections, ap_method="area") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_equal_scores_rank_by_image_then_place():
    objects = [SQUARE, (1, 0, rectangle(0, 0, 10, 10), 0)]
    right, wrong = box_of(0, 0, 10, 10), box_of(50, 0, 60, 10)
    detections = [(1, 0, 0.5, wrong), (0, 0, 0.5, right)]
    assert ap(objects, detections, ap_method="area") == 0.5
    detections = [(1, 0, 0.5, right), (0, 0, 0.5, wrong)]
    assert ap(objects, detections, ap_method="area") == 0.25


def test_scores_of_two_decimals_change_the_ranking():
    detections = [(0, 0, 0.5001, box_of(50, 0, 60, 10)), (0, 0, 0.5004, box_of(0, 0, 10, 10))]
    rounded = [(image, label, round(score, 2), box) for image, label, score, box in detections]
    assert ap([SQUARE], detections) == 1
    assert ap([SQUARE], rounded) == 0.5


def test_voc07_is_not_the_area():
    objects = [SQUARE, (0, 0, rectangle(50, 0, 60, 10), 0)]
    detections = [(0, 0, 0.9, box_of(0, 0, 10, 10))]
    assert ap(objects, detections) == pytest.approx(6 / 11)
    assert ap(objects, detections, ap_method="area") == 0.5


def test_rectangles_as_predictions_give_everything():
    rng = np.random.default_rng(0)
    centers = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) * 400.0
    boxes = np.concatenate(
        [centers, rng.uniform(2, 250, (400, 2)), rng.uniform(-180, 180, (400, 1))], axis=1
    )
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    objects = [(k % 3, k % 4, corners[k], 0) for k in range(400)]
    detections = [(k % 3, k % 4, rng.random(), boxes[k]) for k in range(400)]
    for method in ("voc07", "area"):
        scores = score_detections(
            make_truth(objects, 3, 4), make_detections(detections), ap_method=method
        )
        assert scores.iou_thresholds == COCO_IOU_THRESHOLDS
        np.testing.assert_allclose(scores.ap, 1.0, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.mean_ap(), 1.0, rtol=0, atol=1e-12)


def test_hand_drawn_quadrilaterals_as_predictions_reach_100_at_50():
    rng = np.random.default_rng(1)
    corners = np.array(rectangle(0, 0, 40, 20)) + rng.normal(0, 1.5, (50, 4, 2))
    corners += 100 * np.arange(50)[:, None, None]
    boxes = corners_to_boxes(torch.from_numpy(corners)).numpy()
    scores = score_detections(
        make_truth([(0, 0, quad, 0) for quad in corners]),
        make_detections([(0, 0, 0.5, box) for box in boxes]),
    )
    assert scores.ap[0, 0] == pytest.approx(1)
    assert scores.ap[-1, 0] < 0.9


def test_polygons_as_detections_equal_boxes(slow_judge, random_case):
    objects, detections = random_case(7)
    truth, boxes = make_truth(objects, 3, 4), make_detections(detections)
    polygons = Detections(
        boxes.image_index,
        boxes.class_index,
        boxes.scores,
        polygons=np.array([slow_judge.corners_of(box) for box in boxes.boxes]),
    )
    as_boxes, as_polygons = (score_detections(truth, given).ap for given in (boxes, polygons))
    np.testing.assert_allclose(as_boxes, as_polygons, atol=1e-12, equal_nan=True)


def test_nothing_at_all():
    scores = score_detections(make_truth([], 2, 3), make_detections([]))
    assert np.isnan(scores.ap).all() and np.isnan(scores.mean_ap()).all()
    scores = score_detections(make_truth([SQUARE], 1, 2), make_detections([]))
    assert scores.ap[:, 0].tolist() == [0] * 10 and np.isnan(scores.ap[:, 1]).all()
    assert scores.mean_ap().tolist() == [0] * 10
    scores = score_detections(
        make_truth([], 1, 1), make_detections([(0, 0, 1, box_of(0, 0, 1, 1))])
    )
    assert np.isnan(scores.ap).all() and scores.num_detections.tolist() == [1]


def test_boxes_without_area_find_nothing():
    detections = [(0, 0, 0.9, [5, 5, 0, 10, 0]), (0, 0, 0.8, [5, 5, -10, -10, 0])]
    assert ap([SQUARE], detections, 0.0) == 0


def test_broken_polygons_are_counted():
    bow_tie = [(0, 0), (10, 10), (10, 0), (0, 10)]
    flat = [(0, 0), (10, 10), (20, 20), (30, 30)]
    point = [(3, 3)] * 4
    truth = make_truth([(0, 0, bow_tie, 0), (0, 0, flat, 0), (0, 0, point, 0)])
    # The bow tie covers two of the four triangles of its square.
    detections = make_detections([(0, 0, 0.5, box_of(0, 0, 10, 10))])
    scores = score_detections(truth, detections, iou_thresholds=[0.49, 0.51], ap_method="area")
    assert scores.ap[:, 0].tolist() == [pytest.approx(1 / 3), 0]
    assert (scores.num_repaired, scores.num_degenerate) == (1, 2)


def test_extreme_numbers():
    truth = make_truth([(0, 0, rectangle(0, 0, 20000, 20000), 0), (0, 0, rectangle(7, 7, 8, 8), 0)])
    detections = [
        (0, 0, 0.9, [10000, 10000, 20000, 20000, 90]),
        (0, 0, 0.8, [7.5, 7.5, 1, 1, -180]),
        (0, 0, 0.7, [1e12, -1e12, 1e9, 1e-9, 3e5]),
        (0, 0, 0.6, [0, 0, 1e15, 1e15, 45]),
    ]
    scores = score_detections(truth, make_detections(detections))
    np.testing.assert_allclose(scores.ap[:, 0], 1.0, atol=1e-12)


def test_ground_truth_from_dicts():
    polygon = [1, 2, 30, 4, 28, 20, 2, 18]
    dicts = [
        {"image_id": "a"},
        {
            "image_id": "b",
            "annotations": [
                {"category_id": 1, "poly": polygon, "bbox": [0] * 5, "difficult": 2},
                {"category_id": 0, "bbox": [5, 5, 10, 4, 90]},
            ],
        },
    ]
    truth = GroundTruth.from_dicts(dicts, ["plane", "ship"])
    assert truth.image_index.tolist() == [1, 1] and truth.difficult.tolist() == [2, 0]
    assert truth.polygons[0].ravel().tolist() == polygon
    np.testing.assert_allclose(truth.polygons[1], [[3, 10], [3, 0], [7, 0], [7, 10]], atol=1e-12)


@pytest.mark.parametrize(
    "obj, message",
    [
        ({"category_id": 0}, "neither 'poly'"),
        ({"category_id": 0, "bbox": [0, 0, 1, 1]}, "neither 'poly'"),
        ({"category_id": 0, "poly": [0] * 10}, "10 numbers"),
        ({"category_id": 2, "poly": [0] * 8}, "class index 2 is outside 0..1"),
        ({"category_id": 0, "poly": [0] * 8, "difficult": 3}, "difficulty 3"),
        (
            {"category_id": 0, "poly": [0] * 7 + [float("nan")]},
            "not finite .* the first in image 'x'",
        ),
        ({"category_id": 0, "poly": [0] * 8, "iscrowd": 1}, "crowd"),
    ],
)
def test_bad_labels_are_refused(obj, message):
    with pytest.raises(ValueError, match=message):
        GroundTruth.from_dicts([{"image_id": "x", "annotations": [obj]}], ["plane", "ship"])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="unique"):
        GroundTruth.from_dicts([{"image_id": "x"}, {"image_id": "x"}], ["plane"])
    with pytest.raises(ValueError, match="v1.0, v1.5, count-all"):
        ap([SQUARE], [], difficult_policy="v2")
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        ap([SQUARE], [], threshold=50)
    with pytest.raises(ValueError, match="image index 4"):
        ap([SQUARE], [(4, 0, 1, [1] * 5)])
    with pytest.raises(ValueError, match="finite"):
        make_detections([(0, 0, float("nan"), [1] * 5)])
    with pytest.raises(ValueError, match="either boxes or polygons"):
        Detections(np.zeros(0), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="differ in length"):
        Detections(np.zeros(1), np.zeros(2), np.zeros(1), boxes=np.zeros((1, 5)))


def test_thresholds_made_by_adding_steps_are_recognised():
    assert check_protocol(np.arange(0.5, 1.0, 0.05), "voc07", "v1.0") == COCO_IOU_THRESHOLDS
