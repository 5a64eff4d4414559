"""What every evaluator does as Detectron2 calls it, over all of them."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from rsd2.structures import boxes_to_corners

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, RotatedBoxes

from rsd2.evaluation import (
    AitodEvaluator,
    DotaEvaluator,
    DroneCrowdEvaluator,
    MovingObjectEvaluator,
    TinyEvaluator,
)

from .cases import model_output

PLACES = [[(10, 10), (97, 40), (150, 80)], [(97, 20)]]
WINDOWS = ((0, 110), (90, 110))


@dataclass(frozen=True)
class Kind:
    """An evaluator, the name of its headline and of its file."""

    evaluator: type[DatasetEvaluator]
    headline: str
    file: str

    @property
    def rotated(self) -> bool:
        return self.evaluator is DotaEvaluator

    def box(self, x: float, y: float, side: float = 6) -> list[float]:
        """A square of a prediction."""
        if self.rotated:
            return [x + side / 2, y + side / 2, side, side, 0]
        return [x, y, x + side, y + side]


KINDS = {
    "aitod": Kind(AitodEvaluator, "AP", "metrics_aitod.json"),
    "dota": Kind(DotaEvaluator, "AP50", "metrics_dota.json"),
    "drone_crowd": Kind(DroneCrowdEvaluator, "L_mAP", "metrics_drone_crowd.json"),
    "moving_object": Kind(MovingObjectEvaluator, "F1", "metrics_moving_objects.json"),
    "tiny": Kind(TinyEvaluator, "AP50_tiny", "metrics_tiny.json"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest, register: Callable[..., str]) -> Kind:
    """Registers ``whole`` (two images of 200 x 100 px), its ``windows``, and two more."""
    kind = request.param
    whole, windows = [], []
    for number, places in enumerate(PLACES):
        name = f"{number}.png"
        record = {"file_name": name, "image_id": name, "video_id": name, "height": 100}
        annotations = [annotate(kind, x, y) for x, y in places]
        whole.append({**record, "width": 200, "annotations": annotations})
        for start, width in WINDOWS:
            tile = {"source_id": name, "x": start, "y": 0, "width": width, "height": 100}
            own = [annotate(kind, x - start, y) for x, y in places if 0 <= x - start < width - 6]
            record = {**record, "image_id": f"{number}_{start}.png", "width": width, "tile": tile}
            windows.append({**record, "annotations": own})
    sets = {
        "whole": whole,
        "windows": windows,
        "only_windows": windows,
        "empty": [{**record, "annotations": []} for record in whole],
    }
    for name, records in sets.items():
        register(name, records, source_dataset="whole" if name == "windows" else None)
    return kind


def annotate(kind: Kind, x: float, y: float) -> dict:
    label = {"category_id": 0, "iscrowd": 0}
    if not kind.rotated:
        return {**label, "bbox": [x, y, 6, 6], "bbox_mode": BoxMode.XYWH_ABS}
    box = kind.box(x, y)
    polygon = boxes_to_corners(torch.tensor(box).double()).flatten().tolist()
    return {**label, "bbox": box, "bbox_mode": BoxMode.XYWHA_ABS, "poly": polygon}


def output(kind: Kind, boxes: list, score: float = 0.9, label: int = 0) -> dict:
    # Higher objects are found with more certainty, alike in all windows.
    scores = [score - 0.001 * box[1] for box in boxes]
    labels = [label] * len(boxes)
    return model_output(boxes, scores, labels, (100, 200), 5 if kind.rotated else 4)


def perfect(kind: Kind, record: dict) -> dict:
    corners = [a["bbox"][:2] for a in record["annotations"]]
    shift = 3 if kind.rotated else 0
    return output(kind, [kind.box(x - shift, y - shift) for x, y in corners])


def run(kind: Kind, name: str, records: list | None = None, **options) -> dict[str, float]:
    evaluator = kind.evaluator(name, **options)
    evaluator.reset()
    for record in DatasetCatalog.get(name) if records is None else records:
        evaluator.process([record], [perfect(kind, record)])
    return evaluator.evaluate()["bbox"]


def read(kind: Kind, folder: Path) -> dict:
    return json.loads((folder / kind.file).read_text())


def test_a_perfect_detector(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On whole images, and on windows that see objects twice, which are merged."""
    for name, num_windows in (("whole", 0), ("windows", 4)):
        with caplog.at_level(logging.INFO):
            result = run(kind, name, output_dir=tmp_path / name / "inference")
        assert result[kind.headline] == pytest.approx(100)
        record = read(kind, tmp_path / name / "inference")
        assert record["results"]["bbox"][kind.headline] == result[kind.headline]
        assert record["protocol"]["unit"] == "whole images" and '"unit"' in caplog.text
        assert record["dataset"]["name"] == name and record["dataset"]["scored_on"] == "whole"
        assert len(record["dataset"]["ground_truth_sha256"]) == 64
        assert {"torch", "shapely", "rsd2", "detectron2"} <= set(record["versions"])
        counts = record["counts"]
        assert counts["images"] == counts["images_predicted"] == 2
        assert counts["windows_predicted"] == num_windows
        assert (counts["objects_that_count"], counts["objects_ignored"]) == (4, 0)
        assert counts["detections_scored"] == 4
    assert counts["detections_predicted"] == 6


def test_windows_without_whole_images_are_scored_one_by_one(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = run(kind, "only_windows", output_dir=tmp_path)
    assert result[kind.headline] == pytest.approx(100)
    assert "windows are scored one by one" in caplog.text
    assert read(kind, tmp_path)["protocol"]["unit"] == "windows"


def test_gaps_and_images_of_the_training_are_reported(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = DatasetCatalog.get("windows")
    with caplog.at_level(logging.WARNING):
        options = {"output_dir": tmp_path, "train_dataset_names": ["whole"]}
        result = run(kind, "windows", [records[0], records[0]], **options)
    assert result[kind.headline] < 100
    counts = read(kind, tmp_path)["counts"]
    assert counts["images_without_prediction"] == 1
    assert counts["inputs_without_prediction"] == 3
    assert counts["outputs_seen_more_than_once"] == 1
    assert counts["images_shared_with_training"] == 2
    for text in ("1 images were never predicted", "interrupted", "2 scored images are also in the"):
        assert text in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_detections_that_are_not_finite(
    kind: Kind, bad: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Some are counted and left out; if all are, there is no score and no file."""
    first, second = DatasetCatalog.get("whole")
    evaluator = kind.evaluator("whole", output_dir=tmp_path)
    evaluator.reset()
    broken = output(kind, [kind.box(10, 10)] * 2)
    broken["instances"].scores[:1] = bad
    broken["instances"].pred_boxes.tensor[1, 2] = bad
    evaluator.process([first], [broken])
    message = "all 2 detections on 'whole' have NaN or infinite .*are these the right weights"
    with pytest.raises(FloatingPointError, match=message):
        evaluator.evaluate()
    assert not any(tmp_path.iterdir())
    evaluator.process([second], [perfect(kind, second)])
    with caplog.at_level(logging.WARNING):
        assert 0 < evaluator.evaluate()["bbox"][kind.headline] < 100
    assert "2 detections had NaN" in caplog.text
    assert read(kind, tmp_path)["counts"]["detections_dropped_not_finite"] == 2


def test_broken_detections_below_the_floor_are_counted_as_broken(
    register: Callable[..., str],
) -> None:
    """For evaluators with a floor of the score: NaN is not less than it."""
    tiny = KINDS["tiny"]
    evaluator = tiny.evaluator("broken", score_floor=0.5)
    register("broken", [{"image_id": "a", "annotations": [annotate(tiny, 1, 1)]}])
    evaluator.process([{"image_id": "a"}], [output(tiny, [tiny.box(1, 1)], math.nan)])
    with pytest.raises(FloatingPointError, match="right weights"):
        evaluator.evaluate()


def test_nothing_predicted_and_nothing_to_find(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(kind, "whole", [])[kind.headline] == 0
    with caplog.at_level(logging.WARNING):
        assert all(math.isnan(value) for value in run(kind, "empty").values())
    assert "empty has no object that counts" in caplog.text


def test_mistakes_are_refused_at_once(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write evaluation .*choose another output_dir"):
        kind.evaluator("whole", output_dir=tmp_path / "file" / "inference")
    with pytest.raises(ValueError, match="max_detections must be positive"):
        kind.evaluator("whole", max_detections=0)
    evaluator = kind.evaluator("whole")
    item = DatasetCatalog.get("whole")[0]
    with pytest.raises(ValueError, match=r"'x\.png' is not in dataset 'whole' \(2 images\)"):
        evaluator.process([{**item, "image_id": "x.png"}], [perfect(kind, item)])
    with pytest.raises(ValueError, match=r"lie in 1\.\.1, but .* set the model's num_classes"):
        evaluator.process([item], [output(kind, [kind.box(1, 1)], label=1)])
    with pytest.raises(ValueError, match="no 'image_id'"):
        evaluator.process([{"height": 1, "width": 1}], [perfect(kind, item)])
    other = output(kind, [])
    other["instances"].pred_boxes = (
        Boxes(torch.zeros(0, 4)) if kind.rotated else RotatedBoxes(torch.zeros(0, 5))
    )
    with pytest.raises(ValueError, match="from_horizontal" if kind.rotated else "scores upright"):
        evaluator.process([item], [other])


def test_scoring_needs_no_detectron2() -> None:
    code = (
        "import sys; sys.modules['detectron2'] = None\n"
        "import rsd2.evaluation as e\n"
        "e.score_detections, e.merge_tile_detections, e.write_task1_zip, e.score_aitod\n"
        "e.score_tiny, e.score_miss_rate, e.score_points, e.score_moving_objects\n"
        "try: e.DotaEvaluator\n"
        "except ImportError: print('fine')"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr
