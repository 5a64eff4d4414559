"""A slow judge for the evaluation tests: the protocol in plain Python loops over shapely polygons.

It was written from the text of the protocol and shares nothing with ``rsd2.evaluation``.
"""

import math

import numpy as np
import pytest
import shapely

COUNTING_LABELS = {"v1.0": {0}, "v1.5": {0, 1}, "count-all": {0, 1, 2}}


def corners_of(box):
    cx, cy, w, h, angle = (float(value) for value in box)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    local = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return [(cx + cos * x + sin * y, cy - sin * x + cos * y) for x, y in local]


def area_inside(corners):
    polygon = shapely.Polygon(corners)
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def overlap(first, second):
    union = first.area + second.area
    common = first.intersection(second).area
    return common / (union - common) if first.area > 0 and second.area > 0 else 0.0


def slow_nms(boxes, scores, classes, threshold):
    """Indices kept by greedy suppression within each class, best score first."""
    kept = []
    shapes = [area_inside(corners_of(box)) for box in boxes]
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [j for j in kept if classes[j] == classes[i]]
        if all(overlap(shapes[i], shapes[j]) <= threshold for j in rivals):
            kept.append(i)
    return kept


def slow_curve(verdicts, num_positives):
    """(recall, precision) after every detection; verdicts are 'tp', 'fp' or 'ignored'."""
    true = false = 0
    points = []
    for verdict in verdicts:
        true += verdict == "tp"
        false += verdict == "fp"
        points.append((true / num_positives, true / (true + false) if true + false else 0.0))
    return points


def slow_average_precision(points, method):
    if method == "voc07":
        total = 0.0
        for k in range(11):
            total += max([p for r, p in points if r >= k * 0.1], default=0.0)
        return total / 11
    area, reached = 0.0, 0.0
    for index, (recall, _) in enumerate(points):
        if recall > reached:
            area += (recall - reached) * max(p for _, p in points[index:])
            reached = recall
    return area


def slow_scores(objects, detections, num_classes, thresholds, method, policy):
    """AP by threshold and class; objects (image, class, corners, difficulty), detections
    (image, class, score, corners) with images as numbers, equal scores by image then by place."""
    table = np.full((len(thresholds), num_classes), np.nan)
    shapes = [area_inside(corners) for _, _, corners, _ in objects]
    for label in range(num_classes):
        own = [i for i, item in enumerate(objects) if item[1] == label]
        num_positives = sum(objects[i][3] in COUNTING_LABELS[policy] for i in own)
        ranked = sorted(
            (item for item in detections if item[1] == label), key=lambda d: (-d[2], d[0])
        )
        best = []
        for image, _, _, corners in ranked:
            shape = area_inside(corners)
            chosen, most = None, -1.0
            for i in own:
                if objects[i][0] == image:
                    iou = overlap(shape, shapes[i])
                    if iou > most:
                        chosen, most = i, iou
            best.append((chosen, most))
        if num_positives == 0:
            continue
        for row, threshold in enumerate(thresholds):
            taken, verdicts = set(), []
            for chosen, most in best:
                if not most > threshold:
                    verdicts.append("fp")
                elif objects[chosen][3] not in COUNTING_LABELS[policy]:
                    verdicts.append("ignored")
                else:
                    verdicts.append("fp" if chosen in taken else "tp")
                    taken.add(chosen)
            points = slow_curve(verdicts, num_positives)
            table[row, label] = slow_average_precision(points, method)
    return table


class SlowJudge:
    """The functions above as one fixture."""

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
