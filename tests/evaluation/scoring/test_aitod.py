"""AI-TOD's metric: sizes and numbers by hand, oLRP against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.evaluation import BoxDetections, BoxTruth, score_aitod
from rsd2.evaluation.scoring.aitod import AITOD_AREA_RANGES, optimal_lrp

from ..cases import upright_case

RANGES = list(AITOD_AREA_RANGES)


def make(
    objects: list[tuple], detections: list[tuple], num_classes: int = 1, num_images: int = 1
) -> tuple[BoxTruth, BoxDetections]:
    """Objects (image, class, x, y, w, h, ignore), detections (image, class, x, y, w, h, score)."""
    return upright_case(
        [
            {"image": i, "label": k, "box": (x, y, x + w, y + h), "ignore": flag > 0}
            for i, k, x, y, w, h, flag in objects
        ],
        [(i, k, score, (x, y, x + w, y + h)) for i, k, x, y, w, h, score in detections],
        num_images,
        num_classes,
    )


@pytest.mark.parametrize(
    ("side", "sizes"), [(7, {"vt"}), (8, {"vt", "t"}), (12, {"t"}), (20, {"s"}), (40, {"m"})]
)
def test_sizes(side: float, sizes: set[str]) -> None:
    truth, found = make([(0, 0, 5, 5, side, side, 0)], [(0, 0, 5, 5, side, side, 0.9)])
    precision = score_aitod(truth, found).precision
    defined = {name for a, name in enumerate(RANGES) if not np.isnan(precision[0, a, 0])}
    assert defined == {"all", *sizes}
    assert (precision[~np.isnan(precision)] == 1).all()


def test_fifteen_hundred_detections_count() -> None:
    """One object, found by the last of many detections; 100 of them miss it."""
    wrong = [(0, 0, 20 + 6 * (k % 40), 20 + 6 * (k // 40), 5, 5, 0.9) for k in range(1499)]
    hit = (0, 0, 0, 0, 5, 5, 0.1)
    scores = score_aitod(*make([(0, 0, 0, 0, 5, 5, 0)], [*wrong, hit]))
    assert scores.recall[0, 0, 0].tolist() == [0, 0, 1]
    assert scores.precision[0, 0, 0] == pytest.approx(1 / 1500)
    over = score_aitod(*make([(0, 0, 0, 0, 5, 5, 0)], [*wrong, wrong[0], hit]))
    assert over.recall[0, 0, 0, 2] == 0


def test_lrp_by_hand() -> None:
    # Two objects. First a find of IoU 0.8, then a mistake, then a find of IoU 0.6.
    objects = [(0, 0, 0, 0, 10, 10, 0), (0, 0, 50, 0, 10, 10, 0)]
    detections = [
        (0, 0, 0, 0, 10, 8, 0.9),
        (0, 0, 90, 90, 10, 10, 0.8),
        (0, 0, 50, 0, 10, 6, 0.7),
    ]
    # after 1: (0.2 / 0.5 + 0 + 1) / 2 = 0.7; after 2: 2.4 / 3; after 3: (0.6 / 0.5 + 1) / 3 = 0.733
    error, localisation, false, missed = optimal_lrp(*make(objects, detections))[:, 0]
    assert error == pytest.approx(0.7)
    assert localisation == pytest.approx(0.2)
    assert (false, missed) == (0, 0.5)


def test_lrp_of_equal_scores_is_cut_together() -> None:
    objects = [(0, 0, 0, 0, 10, 10, 0)]
    detections = [(0, 0, 0, 0, 10, 10, 0.9), (0, 0, 50, 50, 10, 10, 0.9)]
    # No threshold tells the two apart: 1 mistake of 2.
    assert optimal_lrp(*make(objects, detections))[:, 0].tolist() == [0.5, 0.0, 0.5, 0.0]


def test_lrp_without_detections_and_without_objects() -> None:
    errors = optimal_lrp(*make([(0, 0, 0, 0, 5, 5, 0)], [], num_classes=2))
    assert errors[0, 0] == 1
    assert np.isnan(errors[1:3, 0]).all()
    assert errors[3, 0] == 1
    assert np.isnan(errors[:, 1]).all()


def test_lrp_of_regions_to_ignore() -> None:
    objects = [(0, 0, 0, 0, 10, 10, 0), (0, 0, 50, 50, 40, 40, 1)]
    detections = [(0, 0, 60, 60, 5, 5, 0.99), (0, 0, 0, 0, 10, 10, 0.9)]
    assert optimal_lrp(*make(objects, detections))[0, 0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_lrp_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = [(k % 3, 0, *rng.uniform(0, 60, 2), *rng.uniform(4, 12, 2), 0) for k in range(20)]
    detections = []
    for image, _, x, y, w, h, _ in objects:
        near = rng.normal(0, 1.0, 4)
        detections.append((image, 0, x + near[0], y + near[1], w, h, rng.integers(1, 20) / 20))
    detections += [(k % 3, 0, *rng.uniform(0, 60, 2), 8, 8, rng.uniform()) for k in range(15)]
    truth, found = make(objects, detections, num_images=3)

    best = 1.0
    for score in {*found.scores.tolist()}:
        # The matching of a cut ranking is the cut of the whole matching.
        chosen = found.select(found.scores >= score)
        order = np.argsort(-chosen.scores, kind="stable")
        taken: set[int] = set()
        overlaps = []
        for d in order:
            options = []
            for g in range(len(truth.boxes)):
                if g in taken or truth.image_index[g] != chosen.image_index[d]:
                    continue
                a, b = truth.boxes[g], chosen.boxes[d]
                shared = np.clip(
                    np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None
                ).prod()
                union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared
                options.append((shared / union, g))
            if options and max(options)[0] >= 0.5:
                overlap, g = max(options)
                taken.add(g)
                overlaps.append(overlap)
        found_count, false = len(overlaps), len(order) - len(overlaps)
        missed = len(truth.boxes) - found_count
        total = sum((1 - o) / 0.5 for o in overlaps) + false + missed
        best = min(best, total / (found_count + false + missed))
    assert optimal_lrp(truth, found)[0, 0] == pytest.approx(best)


def test_without_objects_nothing_is_defined() -> None:
    scores = score_aitod(*make([], [(0, 0, 1, 1, 5, 5, 0.5)]))
    for values in (scores.precision, scores.recall, scores.lrp):
        assert np.isnan(values).all()
