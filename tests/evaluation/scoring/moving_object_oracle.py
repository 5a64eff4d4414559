"""The rules of moving-object and point scoring in plain loops.

As slow and simple as can be. Boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict


def overlap(one: tuple, other: tuple) -> float:
    """Intersection over union."""
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    if w <= 0 or h <= 0:
        return 0.0
    shared = w * h
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / (areas - shared + 1e-7)


def distance(one: tuple, other: tuple) -> float:
    """Of the centres."""
    (x, y), (u, v) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (one, other))
    return math.hypot(x - u, y - v)


def best_pairs(detections: list, objects: list, value) -> list[tuple[int, int]]:
    """The assignment of the greatest sum, by trying all of them."""
    short, long = sorted((len(detections), len(objects)))
    best, best_sum = [], -math.inf
    for chosen in itertools.permutations(range(long), short):
        pairs = list(zip(range(short), chosen))
        if len(detections) > len(objects):
            pairs = [(d, g) for g, d in pairs]
        total = sum(value(detections[d], objects[g]) for d, g in pairs)
        if total > best_sum + 1e-12:
            best, best_sum = pairs, total
    return best


def count(detections: list, objects: list, rule: str, threshold: float) -> int:
    """True positives of one frame."""
    if not detections or not objects:
        return 0
    if rule == "iou":
        pairs = best_pairs(detections, objects, overlap)
        return sum(overlap(detections[d], objects[g]) > threshold for d, g in pairs)

    def value(one: tuple, other: tuple) -> float:
        d = distance(one, other)
        return -(threshold + 10 if d > threshold else d)

    pairs = best_pairs(detections, objects, value)
    return sum(distance(detections[d], objects[g]) < threshold for d, g in pairs)


def video_rates(frames: list[dict], rule: str, threshold: float, score: float) -> dict:
    """Video -> precision, recall, F1. ``frames``: video, detections (box, score), objects."""
    counts = defaultdict(lambda: [0, 0, 0])
    for frame in frames:
        found = [box for box, s in frame["detections"] if s > score]
        true = count(found, frame["objects"], rule, threshold)
        for k, number in enumerate((true, len(found) - true, len(frame["objects"]) - true)):
            counts[frame["video"]][k] += number
    rates = {}
    for video, (true, false, missed) in counts.items():
        precision = true / (true + false) if true + false else 0.0
        recall = true / (true + missed)
        both = precision + recall
        rates[video] = (precision, recall, 2 * precision * recall / both if both else 0.0)
    return rates


def point_precision(frames: list[dict], limit: float) -> float:
    """Average precision of centres within a distance: greedy, pooled, all recall points."""
    ranking, num_objects = [], 0
    for frame in frames:
        num_objects += len(frame["objects"])
        free = list(range(len(frame["objects"])))
        for box, score in sorted(frame["detections"], key=lambda item: -item[1]):
            near = [(distance(box, frame["objects"][g]), g) for g in free]
            hit = bool(near) and min(near)[0] <= limit
            if hit:
                free.remove(min(near)[1])
            ranking.append((score, hit))
    ranking.sort(key=lambda item: -item[0])
    points, true = [], 0
    for rank, (_, hit) in enumerate(ranking, start=1):
        true += hit
        points.append((true / num_objects, true / rank))
    area, before = 0.0, 0.0
    for k, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[k:])
        before = recall
    return area
