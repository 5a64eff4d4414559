"""The report of errors on many detections, against the scoring alone, which every report repeats.

The detections are invented: objects of DOTA's sizes, found by a mediocre detector.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from benchmarks.harness import Case
from rsd2.analysis.error_kinds import ErrorProtocol, judge_detections, split_lost_precision
from rsd2.evaluation import Detections, GroundTruth, score_detections
from rsd2.structures import boxes_to_corners

NUM_DETECTIONS = 100_000
NUM_CLASSES = 15


def cases(num_detections: int = NUM_DETECTIONS) -> list[Case]:
    """The split of lost precision: 11 scorings and the judgement of each detection.

    Args:
        num_detections: number of detections, in images with 200 each.
    """
    data = cache(lambda: make_data(num_detections))
    return [
        Case(
            f"split of lost AP, {num_detections} detections",
            f"{num_detections // 5} objects, {NUM_CLASSES} classes, rotated boxes",
            lambda: split_errors(*data()),
            {"score_detections once": lambda: score_once(*data())},
            note="the peer only scores, at one threshold",
            dtype="float64",
            is_slow=True,
        )
    ]


def make_data(num_detections: int, seed: int = 0) -> tuple[GroundTruth, Detections]:
    """Invent objects, and five detections for each: near it, of another class, or anywhere."""
    rng = np.random.default_rng(seed)
    num_objects = num_detections // 5
    images = np.arange(num_objects) // 40
    boxes = np.concatenate(
        [
            rng.uniform(20, 980, (num_objects, 2)),
            rng.lognormal(3, 0.5, (num_objects, 2)),
            rng.uniform(-90, 90, (num_objects, 1)),
        ],
        axis=1,
    )
    classes = rng.integers(0, NUM_CLASSES, num_objects)
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    truth = GroundTruth(
        tuple(f"image{k}" for k in range(int(images.max()) + 1)),
        tuple(f"class{k}" for k in range(NUM_CLASSES)),
        images, classes, corners, rng.integers(0, 2, num_objects) // 2,
    )  # fmt: skip

    found = np.repeat(boxes, 5, axis=0)
    found[:, :2] += (
        rng.normal(0, 1, (len(found), 2))
        * found[:, 2:4]
        * rng.choice([0.05, 0.4, 5], (len(found), 1))
    )
    found[:, 2:4] *= np.exp(rng.normal(0, 0.2, (len(found), 2)))
    found[:, 4] += rng.normal(0, 8, len(found))
    is_other = rng.random(len(found)) < 0.2
    labels = np.where(is_other, rng.integers(0, NUM_CLASSES, len(found)), np.repeat(classes, 5))
    return truth, Detections(np.repeat(images, 5), labels, rng.random(len(found)), boxes=found)


def split_errors(truth: GroundTruth, detections: Detections) -> dict[str, np.ndarray]:
    """Do the work of a report that grows with the detections."""
    protocol = ErrorProtocol()
    judgement = judge_detections(truth, detections, protocol)
    return split_lost_precision(truth, detections, judgement, protocol)[1]


def score_once(truth: GroundTruth, detections: Detections) -> float:
    """Score the detections at one threshold."""
    return float(score_detections(truth, detections, iou_thresholds=(0.5,)).mean_ap()[0])
