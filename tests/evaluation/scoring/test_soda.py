"""SODA-A's metric against a slow script written from the protocol, and its limits and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shapely import Polygon

from rsd2.evaluation import BoxDetections, GroundTruth, score_soda
from rsd2.evaluation.scoring.soda import SODA_AREA_RANGES
from rsd2.structures import boxes_to_corners


def make_case(objects: list[tuple], found: list[tuple]) -> tuple[GroundTruth, BoxDetections]:
    """Objects are (image, class, box of five), detections (image, class, score, box)."""
    boxes = torch.tensor([o[2] for o in objects], dtype=torch.float64).reshape(-1, 5)
    truth = GroundTruth(
        ("a", "b"),
        ("ship", "car", "absent"),
        np.array([o[0] for o in objects], dtype=np.int64),
        np.array([o[1] for o in objects], dtype=np.int64),
        boxes_to_corners(boxes).numpy().reshape(-1, 4, 2),
        np.zeros(len(objects), dtype=np.int64),
    )
    images, classes, scores, places = zip(*found) if found else ((), (), (), ())
    return truth, BoxDetections(
        np.array(images, dtype=np.int64),
        np.array(classes, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(places, dtype=np.float64).reshape(-1, 5),
    )


def slow_precision(objects, found, label, threshold, low, high, most) -> float:
    """Average precision of one class, by loops over images and detections."""

    def shape(box) -> Polygon:
        return Polygon(boxes_to_corners(torch.tensor(box, dtype=torch.float64)).reshape(4, 2))

    rows, num_objects = [], 0
    for image in (0, 1):
        own = [o[2] for o in objects if o[:2] == (image, label)]
        counted = [low <= b[2] * b[3] <= high for b in own]
        num_objects += sum(counted)
        ranked = sorted((f for f in found if f[:2] == (image, label)), key=lambda f: -f[2])[:most]
        taken: set[int] = set()
        for _, _, score, box in ranked:
            overlaps = []
            for other in own:
                shared = shape(box).intersection(shape(other)).area
                overlaps.append(shared / (shape(box).area + shape(other).area - shared))
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= threshold and best not in taken:
                taken.add(best)
                if counted[best]:
                    rows.append((score, True))
            elif low <= box[2] * box[3] <= high:
                rows.append((score, False))

    if not num_objects:
        return float("nan")
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows])
    precision = hits / np.arange(1, len(rows) + 1)
    recall = hits / num_objects
    reached = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(reached))


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_slow_script_of_the_protocol(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for _ in range(30):
        box = (*rng.uniform(0, 160, 2), *rng.uniform(6, 50, 2), rng.uniform(-90, 90))
        image, label = int(rng.integers(2)), int(rng.integers(2))
        objects.append((image, label, box))
        # Two detections near each object, so that some find it taken or overlap a neighbour more.
        for spread in (1.0, 4.0):
            near = np.array(box) + rng.normal(0, spread, 5) * (1, 1, 0.5, 0.5, 1)
            found.append((image, label, float(rng.random()), tuple(near)))

    most = 20
    scores = score_soda(*make_case(objects, found), most)
    for t, threshold in ((0, 0.5), (5, 0.75)):
        for a, (low, high) in enumerate(SODA_AREA_RANGES.values()):
            for k in (0, 1, 2):
                expected = slow_precision(objects, found, k, threshold, low, high, most)
                assert scores.precision[t, a, k] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert np.isnan(scores.precision[:, :, 2]).all()


def test_the_best_object_alone_is_tried_and_the_limit_counts_per_class_and_image() -> None:
    # The second detection overlaps the first object most, which is taken; COCO would go on to the
    # other object.
    first, second = (50.0, 50.0, 20.0, 10.0, 0.0), (55.0, 50.0, 20.0, 10.0, 0.0)
    between = (51.0, 50.0, 20.0, 10.0, 0.0)
    found = [(0, 0, 0.9, first), (0, 0, 0.8, between), (0, 0, 0.7, second)]
    case = make_case([(0, 0, first), (0, 0, second)], found)
    scores = score_soda(*case)
    assert scores.recall[0, 0, 0] == 1.0
    assert scores.precision[0, 0, 0] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert score_soda(*case, max_detections=2).recall[0, 0, 0] == 0.5


def test_objects_of_other_sizes_are_neither_found_nor_missed() -> None:
    sizes = {"eS": 12.0, "rS": 20.0, "gS": 32.0, "N": 40.0, "none": 60.0}
    objects = [(0, 0, (100.0 * k, 50.0, s, s, 0.0)) for k, s in enumerate(sizes.values())]
    found = [(0, 0, 0.9 - k / 10, o[2]) for k, o in enumerate(objects)]
    scores = score_soda(*make_case(objects, found))
    assert scores.num_counted[:, 0].tolist() == [3, 1, 2, 2, 2]  # both ends belong to a range
    assert scores.precision[0, :, 0].tolist() == [1.0] * 5
    missed = score_soda(*make_case(objects, found[3:]))
    assert missed.precision[0, :, 0].tolist() == pytest.approx([0, 0, 0, 0, 51 / 101])
    assert np.isnan(score_soda(*make_case([], found)).precision).all()
