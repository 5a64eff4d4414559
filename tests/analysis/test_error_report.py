"""The report of errors: what it reads, what it measures, and the page that it writes."""

from __future__ import annotations

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances, RotatedBoxes
from omegaconf import OmegaConf

from rsd2.analysis.error_input import AnalysisError, read_labels, read_predictions
from rsd2.analysis.error_kinds import ErrorProtocol
from rsd2.analysis.error_report import JSON_FILE, PAGE_FILE, write_error_report
from rsd2.analysis.error_statistics import (
    NEIGHBOUR_EDGES,
    analyse_run,
    angle_errors,
    calibration,
    confusion_matrix,
    count_errors_of_images,
    heading_flips,
    recall_by,
)
from rsd2.commands import report_run
from rsd2.commands.train import error_page_folders, write_error_pages
from rsd2.data.datasets import register_dota_instances
from rsd2.evaluation import BoxDetections, CocoEvaluator, Detections, DotaEvaluator, write_task1_zip
from rsd2.evaluation.files.coco_results import to_coco_results
from rsd2.io.program import program_name
from rsd2.structures import boxes_to_corners
from rsd2.testing import TINY_CLASSES, write_tiny_dota

NAME = "tiny_with_errors"
PROTOCOL = ErrorProtocol(ap_method="area")


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory):
    """A registered set of images with rotated boxes."""
    folders = write_tiny_dota(tmp_path_factory.mktemp("scenes"), num_images=6, objects_per_image=4)
    register_dota_instances(NAME, {"thing_classes": list(TINY_CLASSES)}, *folders)
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def write_run(folder: Path, name: str, shift: float, wrong: int = 0, **options) -> Path:
    """Evaluate detections that are shifted, with some classes wrong, as a training would."""
    evaluator = DotaEvaluator(name, output_dir=folder / "inference", distributed=False, **options)
    evaluator.reset()
    for number, record in enumerate(DatasetCatalog.get(name)):
        boxes = torch.tensor([obj["bbox"] for obj in record["annotations"]]).reshape(-1, 5)
        labels = torch.tensor([obj["category_id"] for obj in record["annotations"]]).long()
        labels[:wrong] = 1 - labels[:wrong]
        scores = torch.linspace(0.9, 0.5, len(boxes)) - 0.01 * number
        evaluator.process([record], [instances(boxes + torch.tensor([shift] * 2 + [0] * 3), scores,
                                               labels, record)])  # fmt: skip
    evaluator.evaluate()
    return folder / "inference"


def instances(boxes, scores, labels, record):
    found = Instances((record["height"], record["width"]))
    found.pred_boxes = RotatedBoxes(boxes.float())
    found.scores, found.pred_classes = scores, labels
    return {"instances": found}


class _Page(HTMLParser):
    """Checks that tags close in order, and collects what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe")
        self.images += [value for key, value in attrs if key == "src"]
        self.links += [value for key, value in attrs if key == "href"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_two_runs_side_by_side(tiny_set, tmp_path, capsys):
    good, poor = (
        write_run(tmp_path / name, tiny_set, shift, wrong)
        for name, shift, wrong in (("good", 0.3, 0), ("poor", 1.0, 1))
    )
    arguments = ["--predictions", str(good), "--against", str(poor)]
    assert report_run.main([*arguments, "--output", str(tmp_path / "r")]) == 0
    assert PAGE_FILE in capsys.readouterr().out

    text = (tmp_path / "r" / PAGE_FILE).read_text("utf-8")
    page = _Page(text)
    assert len(page.images) > 15 and all(map(_is_whole_image, page.images))
    assert all(one.startswith("#") for one in page.links) and "http" not in _without_data(text)

    numbers = json.loads((tmp_path / "r" / JSON_FILE).read_text())
    first, second = numbers["runs"]
    assert (first["name"], second["name"]) == (f"{tmp_path.name}/poor", f"{tmp_path.name}/good")
    metrics = json.loads((good / "metrics_dota.json").read_text())
    assert second["ap"] == pytest.approx(metrics["results"]["bbox"]["AP50"], abs=1e-3)
    difference = numbers["difference"]
    assert difference["interval"][0] <= difference["difference"] <= difference["interval"][1]
    assert first["errors"]["class"] == 5 and second["errors"]["class"] == 0


def _is_whole_image(address: str) -> bool:
    """Decode an image of a page; without a browser, nothing else sees a broken one."""
    kind, _, data = address.removeprefix("data:image/").partition(";base64,")
    content = base64.b64decode(data, validate=True)
    if kind == "svg+xml":
        return ElementTree.fromstring(content).tag.endswith("}svg")
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None


def _without_data(text: str) -> str:
    return "".join(part.split('"', 1)[-1] for part in text.split('src="data:'))


def test_an_evaluation_writes_pages_on_wish(tiny_set, tmp_path):
    run = write_run(tmp_path / "run", tiny_set, 1.0)
    shutil.copytree(run, run / "ema")
    evaluator = {"dataset_name": tiny_set, "output_dir": str(run)}
    cfg = {"train": {"error_report": False}, "dataloader": {"evaluator": [evaluator]}}
    assert error_page_folders(OmegaConf.create(cfg)) == {}
    cfg["train"]["error_report"] = True
    write_error_pages(error_page_folders(OmegaConf.create(cfg)), ("", "ema"))
    assert sorted(tmp_path.rglob(PAGE_FILE)) == [run / "ema" / PAGE_FILE, run / PAGE_FILE]


def test_a_run_does_not_differ_from_itself(tiny_set, tmp_path):
    run = write_run(tmp_path / "a", tiny_set, 1.0)
    write_error_report(run, tmp_path, against=run)
    difference = json.loads((tmp_path / JSON_FILE).read_text())["difference"]
    assert difference["difference"] == 0 and difference["interval"] == [0, 0]


@pytest.fixture
def broken(tiny_set, tmp_path):
    """Makes predictions that cannot be used: function from a kind of defect to arguments."""
    run = write_run(tmp_path / "a", tiny_set, 1.0)
    nothing = np.zeros(0, dtype=np.int64)

    def make(kind):
        if kind == "no such folder":
            return {"predictions": tmp_path / "nowhere"}
        if kind == "folder without predictions":
            (run / "Task1.zip").unlink()
        elif kind == "broken zip":
            (run / "Task1.zip").write_bytes(b"PK nothing")
        elif kind == "broken record":
            (run / "metrics_dota.json").write_text("{")
        elif kind == "unknown dataset":
            return {"predictions": run, "dataset": "nobody_registered_this"}
        elif kind == "no dataset named":
            (run / "metrics_dota.json").unlink()
            return {"predictions": run}
        elif kind in ("unknown class", "class is missing"):
            names = ("plane", "ship", "car") if kind == "unknown class" else ("plane",)
            found = Detections(nothing, nothing, np.zeros(0), boxes=np.zeros((0, 5)))
            write_task1_zip(run / "Task1.zip", (), names, found)
        elif kind == "unknown image":
            zeros = np.zeros(1, dtype=np.int64)
            found = Detections(zeros, zeros, np.ones(1), boxes=np.ones((1, 5)))
            write_task1_zip(run / "Task1.zip", ("Z",), TINY_CLASSES, found)
        elif kind == "other labels":
            record = json.loads((run / "metrics_dota.json").read_text())
            record["dataset"]["ground_truth_sha256"] = "0"
            (run / "metrics_dota.json").write_text(json.dumps(record))
        elif kind == "other protocol":
            other = write_run(tmp_path / "b", tiny_set, 1.0, difficult_policy="v1.5")
            return {"predictions": run, "against": other}
        elif kind == "protocol of one":
            other = write_run(tmp_path / "b", tiny_set, 1.0)
            (other / "metrics_dota.json").unlink()
            return {"predictions": run, "against": other}
        elif kind == "impossible threshold":
            return {"predictions": run, "iou_threshold": 1.5}
        return {"predictions": run, "dataset": tiny_set}

    return make


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no such folder", "there are no predictions at"),
        ("folder without predictions", "neither Task1.zip nor coco_instances_results.json"),
        ("broken zip", "Task1.zip: File is not a zip file"),
        ("broken record", "metrics_dota.json is not JSON"),
        ("unknown dataset", "'nobody_registered_this' is not registered"),
        ("no dataset named", "does not say which dataset.*--dataset"),
        ("unknown class", "has class 'car', which is not one of the dataset's: plane, ship"),
        ("class is missing", "holds no Task1_ship.txt"),
        ("unknown image", "Task1_plane.txt, line 1: image 'Z' is not in the ground truth"),
        ("other labels", "other labels than those of 'tiny_with_errors'"),
        ("other protocol", "different protocols.*difficult_policy is 'v1.0' and 'v1.5'|'v1.5' and"),
        ("protocol of one", "different protocols.*name is .*unknown"),
        ("impossible threshold", r"must lie in \[0, 1\), got \[1.5\]"),
    ],
)
def test_bad_input_is_one_sentence(broken, tmp_path, kind, message):
    with pytest.raises(AnalysisError, match=message) as caught:
        write_error_report(output=tmp_path / "report", **broken(kind))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists(), "what cannot be read leaves nothing behind"


def test_command_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        report_run.main(["--output", str(tmp_path)])
    assert "give --run, --predictions, or both" in capsys.readouterr().err
    arguments = ["--predictions", str(tmp_path / "a"), "--output", str(tmp_path / "b")]
    assert report_run.main(arguments) == 1
    assert f"{program_name()}: error: there are no predictions" in capsys.readouterr().err


def long_objects(count, heads=False):
    """Annotations of boxes 40 x 10 that point in many directions."""
    rng = np.random.default_rng(0)
    objects = []
    for number in range(count):
        box = np.array([60.0 + 70 * (number % 6), 60.0 + 70 * (number // 6), 40, 10, 0])
        box[4] = rng.uniform(-180, 180)
        corners = boxes_to_corners(torch.tensor(box)).numpy()
        obj = {"bbox": box.tolist(), "bbox_mode": BoxMode.XYWHA_ABS, "category_id": number % 2,
               "poly": corners.ravel().tolist()}  # fmt: skip
        # The head is at the middle of the side where w ends.
        objects.append({**obj, **({"head": corners[1:3].mean(0).tolist()} if heads else {})})
    return objects


def scene(objects, size=500, **more):
    record = {"file_name": "absent.png", "image_id": "a", "height": size, "width": size, **more}
    return {**record, "annotations": objects}


def analyse(name, folder, boxes, classes, scores=None):
    """Write detections on image 0, and analyse them as the command does."""
    labels = read_labels(name)
    zeros, boxes = np.zeros(len(boxes), dtype=np.int64), np.array(boxes, dtype=np.float64)
    scores = np.linspace(0.9, 0.6, len(boxes)) if scores is None else np.array(scores)
    found = Detections(zeros, np.array(classes), scores, boxes=boxes)
    write_task1_zip(folder / "Task1.zip", labels.truth.image_ids, labels.truth.class_names, found)
    return labels, analyse_run(labels, read_predictions(folder / "Task1.zip", labels), PROTOCOL)


def test_flipped_headings_are_counted(register, tmp_path):
    objects = long_objects(18, heads=True)
    name = register("heads", [scene(objects)], TINY_CLASSES)
    boxes = np.array([obj["bbox"] for obj in objects])
    classes = [obj["category_id"] for obj in objects]
    flipped = boxes + (0, 0, 0, 0, 1) * np.ones((18, 1))
    flipped[:5, 4] += 180
    labels, run = analyse(name, tmp_path, flipped, classes)
    assert heading_flips(labels, run) == [("plane", 9, 3), ("ship", 9, 2)]
    ((aspect, number, median, top),) = angle_errors(labels, run)
    assert (aspect, number) == ("3 to 5", 18) and median == pytest.approx(1, abs=1e-3) and top < 1.1

    half = flipped.copy()
    half[:, 4] = (half[:, 4] + 90) % 180 - 90
    assert heading_flips(*analyse(name, tmp_path, half, classes)) is None


def test_recall_by_place_in_the_windows_size_and_neighbours(register, tmp_path):
    # Two windows of 100 px overlap from 60 to 100; the image is 160 wide.
    boxes = [(20, 50, 20, 5, 0), (80, 50, 20, 5, 0), (66, 90, 20, 5, 0), (150, 50, 20, 5, 0)]
    objects = [{"bbox": box, "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0} for box in boxes]
    whole = register("whole", [{**scene(objects, 160), "height": 100, "gsd": 0.5}], TINY_CLASSES)
    tiles = [
        {**scene([]), "image_id": f"t{x}", "width": 100, "height": 100,
         "tile": {"source_id": "a", "x": x, "y": 0, "width": 100, "height": 100}}
        for x in (0, 60)
    ]  # fmt: skip
    name = register("windows", tiles, TINY_CLASSES, source_dataset=whole)
    labels, run = analyse(name, tmp_path, boxes[:2], [0, 0])
    # Only x = 60 and x = 100 cut the image; the object at 66 is deepest in the first window.
    assert labels.border.tolist() == [80, 20, 34, 90] and labels.has_windows
    assert labels.sizes.tolist() == [10] * 4 and labels.metres.tolist() == [0.5] * 4
    assert labels.neighbours.tolist() == [0, 0, 0, 0]

    found = recall_by(labels.border, (0.0, 50.0, np.inf), np.ones(4, dtype=bool), run.is_found)
    assert found == [("0 to 50", 2, 0.5), ("50 and more", 2, 0.5)]
    near = read_labels(register("near", [scene([*objects, *objects])], TINY_CLASSES))
    assert near.neighbours.tolist() == [1] * 8 and not near.has_windows
    assert near.border.tolist() == [20, 50, 66, 50] * 2, "without windows, the image's border"
    bins = recall_by(near.neighbours, NEIGHBOUR_EDGES, np.ones(8, bool), np.ones(8, bool))
    assert bins == [("1 to 2", 8, 1.0)]


def test_confusions_calibration_and_worst_images(register, tmp_path):
    objects = long_objects(6)
    name = register("confused", [scene(objects)], TINY_CLASSES)
    boxes = [obj["bbox"] for obj in objects][:5] + [(450, 450, 40, 10, 0)]
    # Objects 0 to 3 are found, 4 is a plane taken for a ship, 5 is missed, and one is nothing.
    classes = [0, 1, 0, 1, 1, 1]
    labels, run = analyse(name, tmp_path, boxes, classes, [0.95, 0.95, 0.95, 0.95, 0.97, 0.96])
    matrix, rows = confusion_matrix(labels, run, PROTOCOL)
    assert matrix.tolist() == [[2, 1, 0], [0, 2, 1], [0, 1, 0]]
    assert run.detections.scores[rows].tolist() == [0.97]
    assert count_errors_of_images(labels, run, np.ones(6, dtype=bool)).tolist() == [[2, 2]]
    assert run.threshold == 0.95 and run.curve.f1.max() == pytest.approx(2 * 4 / (6 + 6))

    table, error = calibration(run)
    assert table[:, 0].tolist() == [0] * 9 + [6] and np.isnan(table[:9, 1:]).all()
    assert table[9, 2] == pytest.approx(4 / 6) and error == pytest.approx(table[9, 1] - 4 / 6)


def test_upright_boxes_and_regions_to_ignore(register, tmp_path):
    objects = [
        {"bbox": [10, 10, 20, 10], "category_id": 0},
        {"bbox": [60, 10, 20, 10], "category_id": 0},
        {"bbox": [100, 100, 80, 80], "category_id": 0, "ignore": True},
    ]
    objects = [{**obj, "bbox_mode": BoxMode.XYWH_ABS} for obj in objects]
    name = register("upright", [scene(objects, 200, json_id=7)], TINY_CLASSES)
    boxes = np.array([[10, 10, 30, 20], [61, 10, 81, 20], [110, 110, 120, 120], [0, 150, 9, 160]])
    zeros = np.zeros(4, dtype=np.int64)
    found = BoxDetections(zeros, zeros, np.array([0.9, 0.8, 0.95, 0.99]), boxes.astype(float))
    path = tmp_path / "coco_instances_results.json"
    path.write_text(json.dumps(to_coco_results(found, [7], [1, 2])))

    write_error_report(tmp_path, tmp_path, dataset=name)
    (numbers,) = json.loads((tmp_path / JSON_FILE).read_text())["runs"]
    assert numbers["errors"]["background"] == 1, "what lies in a region is no false detection"
    assert numbers["confusion"]["counts"] == [[2, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert numbers["ap"] == pytest.approx(100 * 2 / 3, abs=0.1)
    assert "Angles" not in (tmp_path / PAGE_FILE).read_text("utf-8")

    path.write_text(json.dumps([{"image_id": 8, "category_id": 1, "bbox": [0] * 4, "score": 1}]))
    with pytest.raises(AnalysisError, match="unknown image"):
        write_error_report(tmp_path, tmp_path, dataset=name)


def test_a_run_scored_by_the_rule_of_coco_gets_its_page(register, tmp_path):
    objects = [
        {"bbox": [10 + 50 * k, 10, 20, 10], "category_id": k, "bbox_mode": BoxMode.XYWH_ABS}
        for k in (0, 1)
    ]
    name = register("of_coco", [scene(objects, 200, json_id=7)], TINY_CLASSES)
    evaluator = CocoEvaluator(name, output_dir=tmp_path / "inference", distributed=False)
    evaluator.reset()
    found = Instances((200, 200), pred_boxes=Boxes(torch.tensor([[10.0, 10, 30, 20]])))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    evaluator.process(DatasetCatalog.get(name), [{"instances": found}])
    evaluator.evaluate()

    write_error_report(tmp_path / "inference", tmp_path / "page")
    summary = json.loads((tmp_path / "page" / JSON_FILE).read_text())
    assert summary["protocol"]["ap_method"] == "area" and summary["runs"][0]["ap"] == 50


def test_a_broken_label_is_one_sentence(tmp_path):
    labels, images = write_tiny_dota(tmp_path / "set", num_images=1)
    [file] = labels.iterdir()
    file.write_text("1 2 3 ship 0\n")
    name = f"broken_{tmp_path.name}"
    register_dota_instances(name, {"thing_classes": list(TINY_CLASSES)}, labels, images)
    try:
        with pytest.raises(AnalysisError, match=f"{file}:1|{file}, line 1"):
            read_labels(name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("width", [390, 1280])
def test_page_renders_in_a_browser(browser, tiny_set, tmp_path, width):
    page = write_error_report(write_run(tmp_path / "a", tiny_set, 1.0, 1), tmp_path)
    script = """(() => {
        const images = [...document.images], body = document.documentElement;
        return [images.filter(i => i.naturalWidth).length, images.length, body.scrollWidth];
    })()"""
    shown, total, wide = browser.visit(page, width, script)
    assert shown == total == len(_Page(page.read_text("utf-8")).images) > 15
    assert wide <= width, "nothing sticks out of the screen"
    assert browser.problems() == []
