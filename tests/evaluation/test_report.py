import json
import math

import numpy as np

from rsd2.evaluation import GroundTruth
from rsd2.evaluation.report import ground_truth_digest, mean_percent, to_json


def test_undefined_becomes_null():
    record = json.loads(to_json({"a": [float("nan"), 1.5], "b": {"c": None}}))
    assert record == {"a": [None, 1.5], "b": {"c": None}}
    assert mean_percent(np.array([[0.5, np.nan], [0.25, np.nan]])) == 37.5
    assert math.isnan(mean_percent(np.array([np.nan])))


def test_digest_changes_with_the_labels():
    def digest(x):
        label = {"category_id": 0, "poly": [x, 0, 1, 0, 1, 1, 0, 1]}
        truth = GroundTruth.from_dicts([{"image_id": "a", "annotations": [label]}], ["c"])
        return ground_truth_digest(truth)

    assert digest(0) == digest(0) != digest(1e-9)
