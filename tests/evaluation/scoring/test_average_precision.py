import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.evaluation.scoring.average_precision import (
    VOC07_RECALL_POINTS,
    average_precision,
    precision_recall,
)


def curve(verdicts, num_positives):
    verdicts = np.array(list(verdicts), dtype="<U1")
    return precision_recall(verdicts == "t", verdicts == "f", num_positives)


def test_values_by_hand():
    precision, recall = curve("tft", 2)
    assert precision.tolist() == [1, 0.5, 2 / 3]
    assert recall.tolist() == [0.5, 0.5, 1]
    # recalls 0 to 0.5 see precision 1, the five beyond see 2/3
    assert average_precision(precision, recall, "voc07") == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert average_precision(precision, recall, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_two_methods_differ():
    precision, recall = curve("t", 2)
    assert average_precision(precision, recall, "voc07") == pytest.approx(6 / 11)
    assert average_precision(precision, recall, "area") == 0.5


def test_recall_points_are_the_doubles_of_the_devkit():
    assert VOC07_RECALL_POINTS.tolist() == np.arange(0.0, 1.1, 0.1).tolist()
    # 3/10 lies one rounding below the fourth point, so only 0, 0.1 and 0.2 are reached.
    precision, recall = curve("ttt", 10)
    assert average_precision(precision, recall, "voc07") == pytest.approx(3 / 11)


def test_ignored_detections_change_nothing():
    for method in ("voc07", "area"):
        plain = average_precision(*curve("tfttf", 4), method)
        assert average_precision(*curve("-t-ft--tf-", 4), method) == pytest.approx(plain)


@pytest.mark.parametrize("method", ["voc07", "area"])
def test_empty_and_undefined(method):
    assert average_precision(*curve("", 3), method) == 0
    assert average_precision(*curve("---", 3), method) == 0
    assert np.isnan(average_precision(*curve("ff", 0), method))


def test_bad_arguments():
    with pytest.raises(ValueError, match="voc07, area"):
        average_precision(np.ones(1), np.ones(1), "coco")
    with pytest.raises(ValueError, match="one length"):
        precision_recall(np.ones(2, bool), np.ones(3, bool), 1)


@settings(max_examples=200, deadline=None)
@given(st.text("tf-", max_size=40), st.integers(0, 10))
def test_equals_the_slow_judge(slow_judge, verdicts, missed):
    num_positives = verdicts.count("t") + missed
    precision, recall = curve(verdicts, num_positives)
    if num_positives == 0:
        assert np.isnan(recall).all()
        return
    points = list(zip(recall.tolist(), precision.tolist()))
    for method in ("voc07", "area"):
        ours = average_precision(precision, recall, method)
        assert 0 <= ours <= 1
        assert ours == pytest.approx(slow_judge.average_precision(points, method), abs=1e-12)
