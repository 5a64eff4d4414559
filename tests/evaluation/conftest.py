"""The slow judge as a fixture, and random cases for it."""

import numpy as np
import pytest

from .slow_judge import (
    area_inside,
    corners_of,
    overlap,
    slow_average_precision,
    slow_nms,
    slow_scores,
)


class SlowJudge:
    """The functions of `slow_judge` as one fixture."""

    corners_of = staticmethod(corners_of)
    nms = staticmethod(slow_nms)
    scores = staticmethod(slow_scores)
    average_precision = staticmethod(slow_average_precision)
    overlap = staticmethod(lambda a, b: overlap(area_inside(a), area_inside(b)))


@pytest.fixture(scope="session")
def slow_judge():
    return SlowJudge


def _random_quadrilateral(rng, box):
    """Corners of a box moved a little; sometimes concave, self-crossing or without area."""
    corners = np.array(corners_of(box)) + rng.normal(0, 0.06 * min(box[2:4]), (4, 2))
    kind = rng.random()
    if kind < 0.08:
        corners[[1, 2]] = corners[[2, 1]]
    elif kind < 0.16:
        corners[2] = corners.mean(axis=0) * 0.8 + corners[0] * 0.2
    elif kind < 0.2:
        corners[2:] = corners[1]
    if rng.random() < 0.5:
        corners = corners[::-1].copy()
    return corners


@pytest.fixture(scope="session")
def random_case():
    """Maker of (objects, detections): detections as (image, class, score, box)."""

    def make(seed, num_images=3, num_classes=4):
        rng = np.random.default_rng(seed)
        objects, detections = [], []
        for image in range(num_images):
            for _ in range(rng.integers(0, 7)):
                box = [*rng.uniform(30, 120, 2), *rng.uniform(8, 60, 2), rng.uniform(-180, 180)]
                # Class 3 never has an object, and class 2 only ones that v1.0 ignores.
                label = int(rng.integers(0, 3))
                difficult = (
                    int(rng.choice([0, 0, 0, 1, 2])) if label < 2 else int(rng.choice([1, 2]))
                )
                objects.append((image, label, _random_quadrilateral(rng, box), difficult))
                if rng.random() < 0.1:
                    objects.append((image, label, objects[-1][2], difficult * (label == 2)))
                for _ in range(rng.integers(0, 4)):
                    near = np.array(box) + rng.normal(0, 1, 5) * [2, 2, 2, 2, 4]
                    near[2:4] = np.maximum(near[2:4], 1)
                    seen_as = label if rng.random() < 0.9 else 3
                    # Few distinct scores, so that many are equal.
                    detections.append((image, seen_as, int(rng.integers(1, 12)) / 12, near))
            for _ in range(rng.integers(0, 4)):
                box = np.array(
                    [*rng.uniform(0, 150, 2), *rng.uniform(4, 60, 2), rng.uniform(-90, 90)]
                )
                label = int(rng.integers(0, num_classes))
                detections.append((image, label, float(rng.random()), box))
        rng.shuffle(detections)
        return objects, detections

    return make
