"""The evaluators of upright boxes as Detectron2 calls them: windows, files, errors, records."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.datasets import register_box_tiles
from rsd2.evaluation import AitodEvaluator, TinyEvaluator

from .cases import model_output

NAME = "tiny_evaluation_test"
TILES = f"{NAME}_tiles"


def make_records() -> list[dict]:
    """Two images of 200 x 100 px with people of 6 px, one in the overlap of two windows."""
    places = [[(10, 10), (95, 40), (150, 80)], [(97, 20)]]
    records = []
    for number, corners in enumerate(places):
        annotations = [
            {"bbox": [x, y, 6, 6], "bbox_mode": BoxMode.XYWH_ABS, "category_id": k % 2, "area": 36,
             "iscrowd": 0, "ignore": False, "uncertain": False}
            for k, (x, y) in enumerate(corners)
        ]  # fmt: skip
        name = f"{number}.png"
        size = {"height": 100, "width": 200}
        records.append(
            {"file_name": name, "image_id": name, "json_id": 11 + number, **size,
             "annotations": annotations}
        )  # fmt: skip
    return records


@pytest.fixture(autouse=True)
def data_sets(register: Callable[..., str]) -> Iterator[None]:
    register(NAME, make_records(), ["person", "boat"])
    register_box_tiles(TILES, NAME, window=(110, 100), overlap=(20, 0))
    yield
    DatasetCatalog.remove(TILES)
    MetadataCatalog.remove(TILES)


def output(boxes: list, scores: list, classes: list) -> dict:
    return model_output(boxes, scores, classes, (100, 200))


def perfect(record: dict) -> dict:
    """What a perfect detector finds in an image or window, higher objects with more certainty."""
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in record["annotations"])]
    labels = [a["category_id"] for a in record["annotations"]]
    return output(boxes, [1 - 0.005 * box[1] for box in boxes], labels)


def run(evaluator: TinyEvaluator, name: str) -> dict[str, float]:
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [perfect(record)])
    return evaluator.evaluate()["bbox"]


def test_a_perfect_detector_on_whole_images() -> None:
    scores = run(TinyEvaluator(NAME), NAME)
    for name in ("AP25_tiny", "AP50_tiny", "AP75_tiny1", "AP50_tiny1-boat", "AR50_all"):
        assert scores[name] == pytest.approx(100)
    assert scores["MR50_tiny1"] == pytest.approx(0, abs=1e-6)
    assert math.isnan(scores["AP50_small"])
    assert not any("-" in key for key in scores if key.count("-") and not key.startswith("AP"))


def test_windows_are_merged() -> None:
    """Objects in the overlap are found twice; without suppression the copies are mistakes."""
    assert run(TinyEvaluator(TILES), TILES)["AP50_tiny"] == pytest.approx(100)
    # Of the people the copy stands third: 67 points of precision 1 and 34 of 3 / 4.
    expected = 100 * (1 + (67 + 34 * 0.75) / 101) / 2
    assert run(TinyEvaluator(TILES, nms_threshold=None), TILES)["AP50_tiny"] == pytest.approx(
        expected
    )


def test_most_detections_are_stated_and_counted(tmp_path: Path) -> None:
    evaluator = TinyEvaluator(NAME, output_dir=tmp_path, max_detections=1)
    evaluator.reset()
    first, second = DatasetCatalog.get(NAME)
    wrong = [[60, 60, 66, 66]]
    hits = perfect(first)["instances"].pred_boxes.tensor.tolist()
    evaluator.process([first], [output(wrong + hits, [0.99, 0.9, 0.9, 0.9], [0, 0, 1, 0])])
    evaluator.process([second], [perfect(second)])
    scores = evaluator.evaluate()["bbox"]
    # One detection of each class: the boat is found, of three people only the second image's.
    assert scores["AP50_tiny-boat"] == pytest.approx(100)
    assert scores["AR50_tiny"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    record = json.loads((tmp_path / "metrics_tiny.json").read_text())
    assert record["protocol"]["max_detections_per_image_and_class"] == 1
    assert record["protocol"]["ignore_rule"].startswith("IoD")
    assert record["counts"]["detections_scored"] == 5
    assert record["results"]["bbox"]["AP50_small"] is None


def test_results_written_are_scored_equally_when_read(tmp_path: Path) -> None:
    first = run(TinyEvaluator(TILES, output_dir=tmp_path), TILES)
    entries = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {e["image_id"] for e in entries} == {11, 12}
    again = TinyEvaluator(NAME)
    again.process_file(tmp_path / "coco_instances_results.json")
    assert again.evaluate()["bbox"] == pytest.approx(first, nan_ok=True)
    tiles = TinyEvaluator(TILES)  # virtual windows share the ids of their images
    tiles.process_file(tmp_path / "coco_instances_results.json")
    assert tiles.evaluate()["bbox"] == pytest.approx(first, nan_ok=True)


def test_result_files_with_unknown_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "found.json"
    path.write_text('[{"image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1}]')
    evaluator = TinyEvaluator(NAME)
    with pytest.raises(ValueError, match=r"found\.json: 1 x unknown image"):
        evaluator.process_file(path)
    with caplog.at_level(logging.WARNING):
        evaluator.process_file(path, on_problem="drop")
    assert "1 entries left out: unknown image" in caplog.text
    assert evaluator.evaluate()["bbox"]["AP50_tiny"] == 0


def test_quirks_have_names_of_their_own() -> None:
    scores = run(TinyEvaluator(NAME, miss_rate_quirks=True), NAME)
    assert "MRq50_tiny" in scores
    assert "MR50_tiny" not in scores
    assert not any(key.startswith("MR") for key in run(TinyEvaluator(NAME, miss_rate=False), NAME))


def test_aitod_evaluator(tmp_path: Path) -> None:
    scores = run(AitodEvaluator(NAME, output_dir=tmp_path), NAME)
    for name in ("AP", "AP50", "AP75", "AP_vt", "AR_1500", "AR_vt", "AP-person", "AP-boat"):
        assert scores[name] == pytest.approx(100)
    assert scores["oLRP"] == pytest.approx(0, abs=1e-9)
    assert math.isnan(scores["AP_m"])
    record = json.loads((tmp_path / "metrics_aitod.json").read_text())
    assert record["protocol"]["max_detections_per_image_and_class"] == 1500
    assert record["protocol"]["recall_at_detections"] == [1, 100, 1500]
    # Of the three people of both classes in the first image the best of each class is left.
    few = run(AitodEvaluator(NAME, max_detections=1), NAME)
    assert few["AR_1"] == pytest.approx(100 * (2 / 3 + 1) / 2) and "AR_100" not in few
