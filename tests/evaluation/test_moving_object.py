"""The evaluators of videos as Detectron2 calls them: results, records, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from rsd2.evaluation import DroneCrowdEvaluator, MovingObjectEvaluator, MovingObjectProtocol

from .cases import model_output

NAME = "moving_object_evaluation_test"


def make_records() -> list[dict]:
    """Two videos of three frames of 50 x 80 px; car k of frame f is at (10 k + f, 20)."""
    records = []
    for video, count in (("002", 3), ("005", 1)):
        for frame in (1, 2, 3):
            boxes = [[10 * k + frame, 20, 5, 5] for k in range(count)]
            name = f"{video}/{frame:06d}"
            records.append(
                {"file_name": name, "image_id": name, "height": 50, "width": 80,
                 "video_id": video, "frame_id": frame,
                 "annotations": [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0,
                                  "iscrowd": 0} for box in boxes]}
            )  # fmt: skip
    return records


@pytest.fixture(autouse=True)
def data_set(register: Callable[..., str]) -> None:
    register(NAME, make_records(), ["car"])


def output(boxes: list, scores: list) -> dict:
    return model_output(boxes, scores, [0] * len(scores), (50, 80))


def half_found(record: dict) -> dict:
    """Every second car, one pixel off, and something false far away with a low score."""
    boxes = [
        [x + 1, y, x + w + 1, y + h] for x, y, w, h in (a["bbox"] for a in record["annotations"])
    ]
    boxes = [*boxes[::2], [70, 40, 75, 45]]
    return output(boxes, [*[0.9] * (len(boxes) - 1), 0.22])


def run(evaluator: MovingObjectEvaluator | DroneCrowdEvaluator) -> dict[str, float]:
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        evaluator.process([record], [half_found(record)])
    return evaluator.evaluate()["bbox"]


def test_moving_objects(tmp_path: Path) -> None:
    """002: 2 of 3 found, F1 0.8; 005: all. At a score of 0.2, each frame has one false more."""
    evaluator = MovingObjectEvaluator(
        NAME, output_dir=tmp_path, protocols=["micml", "hieum", "viso", "dsfnet_iou20"]
    )
    result = run(evaluator)
    assert result["precision"] == pytest.approx(100)
    assert result["recall"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert result["F1"] == result["F1_hieum"] == pytest.approx(90)
    assert result["F1-002"] == pytest.approx(80) and result["F1-005"] == pytest.approx(100)
    assert result["mAP_viso"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert result["F1_dsfnet_iou20"] == pytest.approx(90)
    record = json.loads((tmp_path / "metrics_moving_objects.json").read_text())
    assert record["results"]["bbox"]["F1"] == pytest.approx(90)
    protocols = {entry["name"]: entry for entry in record["protocol"]["protocols"]}
    assert protocols["hieum"]["reported_score_above"] == 0.25
    low, middle, _ = protocols["hieum"]["by_score"]
    assert low["counts_true_false_missed"] == [9, 6, 3]
    assert low["false_alarms_per_pixel"] == pytest.approx(6 / (6 * 50 * 80))
    assert middle["videos"]["002"]["counts_true_false_missed"] == [6, 0, 3]
    assert protocols["micml"]["t"] == 0 and protocols["hieum"]["t"] == 5
    assert record["counts"]["images"] == 6
    assert len(json.loads((tmp_path / "coco_instances_results.json").read_text())) == 15


def test_average_precision_is_cocos() -> None:
    """IoU 4/6 of 3 in 4 objects: all right up to a recall of 3/4 at thresholds up to 0.65."""
    result = run(MovingObjectEvaluator(NAME))
    assert result["AP50"] == pytest.approx(100 * 76 / 101)
    assert result["AP75"] == 0
    assert result["AP"] == pytest.approx(result["AP50"] * 4 / 10)
    assert result["AR_100"] == pytest.approx(75 * 4 / 10)
    assert "AP" not in run(MovingObjectEvaluator(NAME, average_precision=False))


def test_average_precision_at_a_higher_overlap() -> None:
    """All found, 0.8 of 5 px off: an IoU of 4.2 / 5.8 = 0.72 is enough for 0.50 to 0.70."""
    evaluator = MovingObjectEvaluator(NAME)
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        boxes = [[x + 0.8, y, x + w + 0.8, y + h] for x, y, w, h in
                 (a["bbox"] for a in record["annotations"])]  # fmt: skip
        evaluator.process([record], [output(boxes, [0.9] * len(boxes))])
    result = evaluator.evaluate()["bbox"]
    assert (result["AP50"], result["AP75"], result["AP"]) == pytest.approx((100, 0, 50))


def test_the_number_of_detections_matters() -> None:
    boxes = [[60, 0, 65, 5]] * 100
    evaluators = [MovingObjectEvaluator(NAME, max_detections=n) for n in (100, 200)]
    for evaluator in evaluators:
        evaluator.reset()
        for record in DatasetCatalog.get(NAME):
            true = [
                [x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in record["annotations"])
            ]
            evaluator.process([record], [output(boxes + true, [0.5] * 100 + [0.4] * len(true))])
    few, many = (evaluator.evaluate()["bbox"] for evaluator in evaluators)
    assert few["AP50"] == 0 and many["AP50"] > 0 and few["F1"] == many["F1"]


def test_a_single_detection_counts() -> None:
    """The best of each frame: one of three cars in 002, one of one in 005; 6 of 12 in all."""
    evaluator = MovingObjectEvaluator(NAME, max_detections=1)
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        true = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in record["annotations"])]
        evaluator.process([record], [output(true, [0.9 - 0.1 * k for k in range(len(true))])])
    result = evaluator.evaluate()["bbox"]
    assert result["AR_1"] == pytest.approx(50) and result["AP"] == pytest.approx(100 * 51 / 101)


def test_drone_crowd(tmp_path: Path) -> None:
    """Centres one pixel off, 9 of 12 found before anything false: 75 at every distance."""
    result = run(DroneCrowdEvaluator(NAME, output_dir=tmp_path))
    assert list(result) == ["L_mAP", "L_AP10", "L_AP15", "L_AP20"]
    assert list(result.values()) == pytest.approx([75] * 4)
    record = json.loads((tmp_path / "metrics_drone_crowd.json").read_text())
    assert record["protocol"]["distances_px"] == list(range(1, 26))
    near = run(DroneCrowdEvaluator(NAME, distances=[0.5, 1]))
    assert near["L_mAP"] == pytest.approx(75 / 2)
    one = run(DroneCrowdEvaluator(NAME, max_detections=1))  # of 002 the second is cut: 6 of 12
    assert one["L_mAP"] == pytest.approx(50)


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'mcml'; choose among micml, dsfnet"):
        MovingObjectEvaluator(NAME, protocols=["mcml"])
    own = MovingObjectProtocol("micml", "iou", 0.5)
    with pytest.raises(ValueError, match="different names"):
        MovingObjectEvaluator(NAME, protocols=["micml", own])
    with pytest.raises(ValueError, match="distances must be positive"):
        DroneCrowdEvaluator(NAME, distances=[0, 1])
    for record in DatasetCatalog.get(NAME):
        del record["video_id"]
    with pytest.raises(ValueError, match="has no video_id; moving objects are scored video by"):
        MovingObjectEvaluator(NAME).reset()
