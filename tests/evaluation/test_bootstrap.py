"""Intervals of average precision by resampling blocks."""

import numpy as np
import pytest

from rsd2.evaluation.scoring.bootstrap import resample_ap
from rsd2.evaluation.scoring.dota import Detections, GroundTruth, score_detections
from rsd2.structures import boxes_to_corners

torch = pytest.importorskip("torch")


def make(num_found: int, num_missed: int, num_false: int, spacing: float = 200.0):
    """Objects far apart, some found, and false alarms elsewhere with lower scores."""
    boxes = np.array(
        [[spacing * k + 50, 50, 20, 8, 30] for k in range(num_found + num_missed)]
    ).reshape(-1, 5)
    wrong = np.array([[spacing * k + 50, 5050, 20, 8, 0] for k in range(num_false)]).reshape(-1, 5)
    shown = np.concatenate([boxes[:num_found], wrong])
    truth = GroundTruth(
        ("a",), ("ship",), np.zeros(len(boxes), int), np.zeros(len(boxes), int),
        boxes_to_corners(torch.from_numpy(boxes)).numpy(), np.zeros(len(boxes), int),
    )  # fmt: skip
    zeros = np.zeros(len(shown), int)
    scores = np.linspace(0.9, 0.1, len(shown))
    return truth, Detections(zeros, zeros, scores, boxes=shown)


def test_a_perfect_detector_is_perfect_in_every_sample():
    assert (resample_ap(*make(9, 0, 0), samples=50) == 1).all()


def test_nothing_found_is_zero_in_every_sample():
    assert (resample_ap(*make(0, 9, 0), samples=50) == 0).all()


def test_the_interval_holds_the_score_and_narrows_with_more_objects():
    widths = []
    for size in (1, 10):
        data = make(12 * size, 8 * size, 5 * size)
        drawn = resample_ap(*data, ap_method="area", samples=300)
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        score = score_detections(*data, iou_thresholds=[0.5], ap_method="area").mean_ap()[0]
        assert low < score < high
        widths.append(high - low)
    # Ten times the objects: about a third of the width.
    assert 0.2 < widths[1] / widths[0] < 0.5


def test_one_block_leaves_nothing_to_draw():
    data = make(3, 2, 2)
    drawn = resample_ap(*data, block=1e6, samples=20)
    assert np.unique(drawn).tolist() == [score_detections(*data, iou_thresholds=[0.5]).mean_ap()[0]]


def test_runs_are_scored_on_the_same_samples():
    truth, found = make(40, 20, 10)
    poorer = Detections(*(column[5:] for column in vars(found).values() if column is not None))
    drawn = resample_ap(truth, found, found, poorer, ap_method="area", samples=200)
    assert drawn.shape == (3, 200) and np.array_equal(drawn[0], drawn[1])
    # What is hard for both is not in their difference, which is surer than either.
    assert (drawn[0] - drawn[2]).std() < 0.7 * drawn[0].std()
    assert np.nanpercentile(drawn[0] - drawn[2], 2.5) > 0


def test_seeds_repeat_and_no_object_is_nan():
    data = make(3, 3, 3)
    assert np.array_equal(resample_ap(*data, samples=30), resample_ap(*data, samples=30))
    assert np.isnan(resample_ap(*make(0, 0, 2), samples=3)).all()
    assert np.isnan(resample_ap(*make(0, 0, 0), samples=3)).all()
    with pytest.raises(ValueError, match="must be positive"):
        resample_ap(*data, block=0)
