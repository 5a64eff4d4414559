import json
import math

import numpy as np
import pytest

from rsd2.evaluation import COCO_IOU_THRESHOLDS, DotaScores
from rsd2.evaluation import dota_report as report
from rsd2.evaluation.report import to_json

CLASSES = ("plane", "small-vehicle", "ship")


def make_scores(thresholds=COCO_IOU_THRESHOLDS):
    ap = np.linspace(0.9, 0.1, len(thresholds))[:, None] * np.array([1.0, 0.5, np.nan])
    return DotaScores(
        iou_thresholds=tuple(thresholds),
        ap=ap,
        recall=ap + 0.05,
        num_counted=np.array([3, 4, 0]),
        num_ignored=np.array([0, 1, 2]),
        num_detections=np.array([9, 8, 7]),
        num_repaired=0,
        num_degenerate=0,
    )


def test_summary_names_and_values():
    result = report.summarize(make_scores(), CLASSES)
    assert list(result) == ["AP", "AP50", "AP75"] + [f"AP50-{name}" for name in CLASSES]
    assert result["AP50"] == pytest.approx(100 * 0.9 * 0.75)
    assert result["AP"] == pytest.approx(100 * 0.5 * 0.75)
    assert result["AP50-small-vehicle"] == pytest.approx(45)
    assert math.isnan(result["AP50-ship"])
    assert not any("-" in key for key in list(result)[:3])


def test_other_thresholds_are_named_and_what_was_not_computed_is_nan():
    result = report.summarize(make_scores((0.25, 0.5)), CLASSES)
    assert math.isnan(result["AP"]) and math.isnan(result["AP75"])
    assert result["AP25"] == pytest.approx(67.5) and result["AP50"] == pytest.approx(7.5)


def test_table_shows_every_class_and_the_mean():
    lines = report.format_table(make_scores(), CLASSES).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [*CLASSES, "mean / total"]
    assert "67.50" in lines[-1] and "nan" in lines[-2]
    report.format_table(make_scores((0.3,)), CLASSES)


def test_every_class_has_a_record():
    classes = json.loads(to_json(report.per_class_record(make_scores(), CLASSES)))
    assert classes[2]["ap"] == [None] * 10 and classes[1]["ignored_objects"] == 1


def test_protocol_states_what_matters():
    protocol = report.describe_protocol(
        make_scores(), ap_method="voc07", difficult_policy="v1.5", score_floor=None
    )
    assert "> t" in protocol["iou_rule"] and protocol["difficulty_labels_that_count"] == [0, 1]
    assert protocol["iou_thresholds"] == list(COCO_IOU_THRESHOLDS)
    assert "score_floor" in protocol
    json.loads(to_json(protocol))
