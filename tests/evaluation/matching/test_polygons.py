import tracemalloc

import numpy as np
import pytest
import torch

from rsd2.evaluation.matching import polygons as polygon_matching
from rsd2.evaluation.matching.polygons import Regions, best_overlaps, paired_iou
from rsd2.structures import boxes_to_corners
from rsd2.testing import random_rotated_boxes


def random_boxes(num, seed, size=600):
    boxes = random_rotated_boxes(num, image_size=size, max_side=200, seed=seed, dtype=torch.float64)
    return boxes.numpy()


def quadrilaterals(boxes, seed):
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    return corners + np.random.default_rng(seed).normal(0, 2, corners.shape)


def test_paired_iou_equals_shapely(slow_judge):
    boxes, polygons = random_boxes(150, 0, 60), quadrilaterals(random_boxes(150, 1, 60), 2)
    pairs = np.arange(150)
    ours = paired_iou(Regions.from_boxes(boxes), pairs, Regions.from_polygons(polygons), pairs)
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    expected = [slow_judge.overlap(a, b) for a, b in zip(corners, polygons)]
    np.testing.assert_allclose(ours, expected, atol=1e-10)
    assert (ours > 0.1).sum() > 20


@pytest.mark.parametrize("min_iou", [0.0, 0.3, 0.5])
def test_best_overlap_equals_all_pairs(min_iou):
    boxes, objects = random_boxes(400, 3), random_boxes(80, 4)
    boxes[:200] = objects[np.arange(200) % 80] + np.random.default_rng(5).normal(0, 3, (200, 5))
    boxes[:, 2:4] = abs(boxes[:, 2:4])
    polygons = quadrilaterals(objects, 6)
    rng = np.random.default_rng(7)
    det_groups, gt_groups = rng.integers(0, 6, 400), rng.integers(1, 5, 80)
    det_groups[:200] = gt_groups[np.arange(200) % 80]
    detections, truth = Regions.from_boxes(boxes), Regions.from_polygons(polygons)
    every_det, every_gt = (
        x.ravel() for x in np.meshgrid(np.arange(400), np.arange(80), indexing="ij")
    )
    table = paired_iou(detections, every_det, truth, every_gt).reshape(400, 80)
    table[det_groups[:, None] != gt_groups] = 0
    best, iou = best_overlaps(detections, det_groups, truth, gt_groups, min_iou)
    above = table.max(axis=1) > min_iou
    np.testing.assert_array_equal(best, np.where(above, table.argmax(axis=1), -1))
    np.testing.assert_allclose(iou, np.where(above, table.max(axis=1), 0), atol=1e-15)


def test_the_first_of_equal_objects_is_taken():
    polygon = [[0, 0], [10, 0], [10, 10], [0, 10]]
    truth = Regions.from_polygons(np.array([polygon, polygon], dtype=float))
    best, iou = best_overlaps(
        Regions.from_boxes([[5, 5, 10, 10, 0]]), np.array([3]), truth, np.array([3, 3])
    )
    assert best.tolist() == [0] and iou.tolist() == [1]


def test_no_boxes_or_no_objects():
    some, none = Regions.from_boxes(random_boxes(3, 0)), Regions.from_boxes(np.zeros((0, 5)))
    objects = Regions.from_polygons(quadrilaterals(random_boxes(3, 0), 0))
    nothing = Regions.from_polygons(np.zeros((0, 4, 2)))
    groups, no_groups = np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64)
    assert best_overlaps(some, groups, nothing, no_groups)[0].tolist() == [-1] * 3
    assert best_overlaps(none, no_groups, objects, groups)[0].tolist() == []
    assert best_overlaps(some, groups + 1, objects, groups)[0].tolist() == [-1] * 3


def test_blocks_are_bounded_and_change_nothing(monkeypatch):
    objects = random_boxes(50, 8, 100)
    boxes = objects[np.arange(1000) % 50] + np.random.default_rng(9).normal(0, 1, (1000, 5))
    boxes[:, 2:4] = abs(boxes[:, 2:4])
    groups = (np.zeros(1000, dtype=np.int64), np.zeros(50, dtype=np.int64))
    detections = Regions.from_boxes(boxes)
    truth = Regions.from_polygons(quadrilaterals(objects, 10))
    whole = best_overlaps(detections, groups[0], truth, groups[1])
    monkeypatch.setattr(polygon_matching, "MAX_PAIRS_AT_ONCE", 500)
    blocks = list(polygon_matching._candidate_pairs(detections, groups[0], truth, groups[1]))
    assert len(blocks) > 50 and max(len(det) for det, _ in blocks) <= 500
    parts = best_overlaps(detections, groups[0], truth, groups[1])
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_memory_stays_far_below_the_full_table(monkeypatch):
    num_objects, num_boxes = 500, 20_000
    objects = random_boxes(num_objects, 11, 4000)
    boxes = objects[np.arange(num_boxes) % num_objects]
    detections = Regions.from_boxes(boxes)
    truth = Regions.from_polygons(boxes_to_corners(torch.from_numpy(objects)).numpy())
    monkeypatch.setattr(polygon_matching, "MAX_PAIRS_AT_ONCE", 50_000)
    tracemalloc.start()
    best, _ = best_overlaps(
        detections, np.zeros(num_boxes, int), truth, np.zeros(num_objects, int), min_iou=0.5
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (best == np.arange(num_boxes) % num_objects).all()
    assert peak < num_objects * num_boxes * 8 / 5


def test_orientation_does_not_matter():
    polygons = quadrilaterals(random_boxes(20, 12), 13)
    boxes = Regions.from_boxes(random_boxes(20, 12))
    pairs = np.arange(20)
    there = paired_iou(boxes, pairs, Regions.from_polygons(polygons), pairs)
    back = paired_iou(boxes, pairs, Regions.from_polygons(polygons[:, ::-1]), pairs)
    np.testing.assert_allclose(there, back, atol=1e-14)
    assert (there > 0.1).all()


def iou_of_polygons(first, second):
    pairs = np.arange(len(first))
    return paired_iou(Regions.from_polygons(first), pairs, Regions.from_polygons(second), pairs)


@pytest.mark.parametrize("offset", [0, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11])
@pytest.mark.parametrize("self_crossing", [False, True])
def test_a_polygon_moved_by_rounding_is_still_itself(offset, self_crossing):
    """GEOS finds no overlap at all for some 1 in 20,000 of these pairs."""
    count = 300 if self_crossing else 20_000
    polygons = quadrilaterals(random_boxes(count, 14, 2000), 15)
    if self_crossing:
        polygons[:, [1, 2]] = polygons[:, [2, 1]]
    rng = np.random.default_rng(16)
    moved = polygons + offset * rng.standard_normal(polygons.shape)
    solid = Regions.from_polygons(polygons).areas > 1
    assert solid.sum() > 0.9 * count
    np.testing.assert_allclose(iou_of_polygons(polygons, moved)[solid], 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("offset", [1e-15, 1e-14, 1e-12])
def test_neighbours_that_share_an_edge_up_to_rounding_do_not_overlap(offset):
    """GEOS gives one of the two as the intersection of some."""
    rng = np.random.default_rng(17)
    edges = rng.uniform(0, 2000, (20_000, 2, 2))
    along = edges[:, 1] - edges[:, 0]
    across = along[:, ::-1] * [1, -1]
    on_sides = []
    for side in (1, -1):
        others = rng.uniform(0.2, 1, (len(edges), 2, 1)) * side * across[:, None]
        quadrilateral = np.concatenate([edges, edges[:, ::-1] + others], axis=1)
        on_sides.append(quadrilateral + offset * rng.standard_normal(quadrilateral.shape))
    assert iou_of_polygons(*on_sides).max() < 1e-9


@pytest.mark.parametrize("corners", [3, 4, 5, 9])
def test_polygons_of_any_shape_equal_shapely(slow_judge, corners):
    """Random corners make concave, self-crossing and many-fold polygons, some with holes."""
    rng = np.random.default_rng(corners)
    first, second = rng.uniform(0, 50, (2, 200, corners, 2))
    expected = [slow_judge.overlap(a, b) for a, b in zip(first, second)]
    np.testing.assert_allclose(iou_of_polygons(first, second), expected, atol=1e-9)
    assert (np.array(expected) > 0.05).sum() > 50
