"""Tables of scores with intervals: what a file of detections gives, in percent."""

import json
import math
import re

import numpy as np
import pytest
from detectron2.structures import BoxMode

from rsd2.evaluation import AitodEvaluator, MovingObjectEvaluator
from rsd2.evaluation.files.task1 import write_task1_zip
from rsd2.evaluation.intervals import box_interval_table, interval_table
from rsd2.evaluation.scoring.bootstrap import resample_ap
from rsd2.evaluation.scoring.dota import Detections, GroundTruth, score_detections


def dicts_of(num_images):
    """Images of two ships each."""
    boxes = [[40.0, 30.0, 30.0, 8.0, 20.0], [140.0, 90.0, 40.0, 9.0, -50.0]]
    annotations = [{"bbox": box, "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0} for box in boxes]
    common = {"height": 200, "width": 200, "annotations": annotations}
    return [{"image_id": f"{k}", "file_name": f"{k}.png", **common} for k in range(num_images)]


def detections_of(dicts, shares):
    """Find the first ship of every image, and the second one of a share; further off each time."""
    rows = [
        (image, annotation["bbox"][:4] + [annotation["bbox"][4] + image])
        for image, record in enumerate(dicts)
        for annotation in record["annotations"][: 1 + (image in shares)]
    ]
    indices = np.array([image for image, _ in rows])
    scores = np.linspace(0.9, 0.1, len(rows))
    return Detections(indices, 0 * indices, scores, boxes=np.array([box for _, box in rows]))


def table(tmp_path, dicts, detections):
    path = tmp_path / "Task1.zip"
    write_task1_zip(path, [record["image_id"] for record in dicts], ["ship"], detections)
    text = interval_table(path, dicts, ["ship"], samples=200)
    rows = [
        line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| (VOC07|area)", line)
    ]
    return [[[float(x) for x in re.findall(r"[\d.]+", cell)] for cell in row[1:]] for row in rows]


def test_scores_are_those_of_the_evaluation_and_lie_in_their_intervals(tmp_path):
    dicts = dicts_of(12)
    detections = detections_of(dicts, shares={0, 3, 4, 8, 9})
    truth = GroundTruth.from_dicts(dicts, ["ship"])
    rows = table(tmp_path, dicts, detections)
    for method, row in zip(("voc07", "area"), rows):
        ap = 100 * score_detections(truth, detections, ap_method=method).mean_ap()
        for (value, low, high), expected in zip(row, (ap[0], ap[5], ap.mean())):
            assert value == pytest.approx(expected, abs=0.051)
            assert low <= value <= high and low < high


def test_a_single_image_leaves_nothing_to_draw(tmp_path):
    dicts = dicts_of(1)
    for row in table(tmp_path, dicts, detections_of(dicts, shares=set())):
        assert all(value == low == high for value, low, high in row)


def test_boxes_and_their_corners_are_resampled_alike():
    dicts = dicts_of(6)
    boxes = detections_of(dicts, shares={1, 2})
    polygons = Detections(
        boxes.image_index, boxes.class_index, boxes.scores, polygons=boxes.corners()
    )
    truth = GroundTruth.from_dicts(dicts, ["ship"])
    drawn = [resample_ap(truth, one, block=math.inf, samples=20) for one in (boxes, polygons)]
    np.testing.assert_allclose(*drawn)


@pytest.mark.parametrize(
    ("evaluator_class", "score"), [(AitodEvaluator, "AP50"), (MovingObjectEvaluator, "recall")]
)
def test_whole_images_of_upright_boxes_are_drawn(tmp_path, register, evaluator_class, score):
    """Of eight frames of 1 to 8 cars four are found: each draw has the share of their cars."""
    boxes = [[[12 * k, 20, 6, 6] for k in range(frame + 1)] for frame in range(8)]
    mode = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    size = {"height": 50, "width": 120, "video_id": "v"}
    register(
        "frames_to_draw",
        [
            {**size, "image_id": f"{k}", "file_name": f"{k}.png",
             "annotations": [{"bbox": box, **mode} for box in row]}
            for k, row in enumerate(boxes)
        ],
        ["car"],
    )  # fmt: skip
    entries = [
        {"image_id": k + 1, "category_id": 1, "bbox": box, "score": 0.9}
        for k, row in enumerate(boxes[:4])
        for box in row
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))

    table = box_interval_table(evaluator_class("frames_to_draw"), path, samples=300)
    row = next(line for line in table.splitlines() if line.startswith(f"| {score} |"))
    found, low, high = (float(x) for x in re.findall(r"[\d.]+", row.split("|")[2]))
    cars, generator = np.arange(1, 9), np.random.default_rng(0)
    draws = [generator.integers(0, 8, 8) for _ in range(300)]
    shares = [100 * cars[draw[draw < 4]].sum() / cars[draw].sum() for draw in draws]
    assert found == pytest.approx(100 * 10 / 36, abs=1)
    assert (low, high) == pytest.approx(np.percentile(shares, (2.5, 97.5)), abs=1)
