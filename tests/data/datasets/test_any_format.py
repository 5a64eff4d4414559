"""Labels of annotation tools as datasets: what becomes of classes, borders and missing files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

import rsd2
from rsd2.data.datasets import load_dataset
from rsd2.data.formats.coco_polygons import CocoRotated
from rsd2.data.formats.label_format import FileForAll
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import LABEL_FORMATS
from rsd2.structures import boxes_to_corners
from tests.data.formats.published_labels import HEIGHT, PUBLISHED, TURNED, WIDTH

CLASSES = ["storage tank", "渔船"]
NAME = "labels_of_a_tool"


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Function that writes published labels of a format, and gives labels and images."""
    image = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()

    def write(name: str) -> tuple[Path, Path]:
        files = PUBLISHED[name]()
        texts = {f"labels/{label}": text.encode() for label, text in files.items()}
        images = dict.fromkeys(("images/harbour/a b.png", "images/empty.png"), image)
        for place, data in (texts | images).items():
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_bytes(data)
        is_one = isinstance(LABEL_FORMATS[name], FileForAll)
        labels = tmp_path / "labels"
        return labels / next(iter(files)) if is_one else labels, tmp_path / "images"

    return write


@pytest.mark.parametrize("name", list(LABEL_FORMATS))
def test_every_format_is_a_data_set(name: str, put) -> None:
    labels, images = put(name)
    rsd2.register_dataset(NAME, labels, images, classes=CLASSES)
    try:
        empty, ship = DatasetCatalog.get(NAME)
        metadata = MetadataCatalog.get(NAME)
        assert metadata.thing_classes == CLASSES and metadata.evaluator_type == "dota"
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert (empty["image_id"], empty["annotations"]) == ("empty", [])
    assert (ship["image_id"], ship["height"], ship["width"]) == ("harbour/a b", HEIGHT, WIDTH)
    assert Path(ship["file_name"]).is_file()
    turned, upright = ship["annotations"]
    assert (turned["category_id"], upright["category_id"]) == (1, 0)
    assert turned["bbox_mode"] == BoxMode.XYWHA_ABS
    corners = boxes_to_corners(torch.tensor(turned["bbox"], dtype=torch.float64))
    np.testing.assert_allclose(sorted(corners.tolist()), sorted(TURNED), atol=1e-4)
    assert turned.get("head") == ([77.3, 60.0] if name == "hrsc" else None)
    assert turned["iscrowd"] == 0


def test_policies_hold_for_every_format(put) -> None:
    labels, images = put("cvat")
    report = LabelReport()
    records = load_dataset(labels, images, ["渔船"], report=report)
    assert [len(r["annotations"]) for r in records] == [0, 1] and report.objects == 1
    (problem,) = report.problems
    assert problem.kind == "unknown_class" and "annotations.xml:13" in str(problem)
    with pytest.raises(ValueError, match="class 'storage tank' is not in the class list"):
        load_dataset(labels, images, ["渔船"], unknown_class="error")

    (images / "more.png").write_bytes((images / "empty.png").read_bytes())
    assert len(load_dataset(labels, images, CLASSES)) == 3
    assert len(load_dataset(labels, images, CLASSES, missing_label="drop")) == 2
    with pytest.raises(ValueError, match="(?s)image_without_label.*more.png"):
        load_dataset(labels, images, CLASSES, missing_label="error")
    far = labels.read_text("utf-8").replace('xbr="80.00"', 'xbr="2080.00"')
    labels.write_text(far, encoding="utf-8")
    assert len(load_dataset(labels, images, CLASSES, out_of_image="drop")[1]["annotations"]) == 1


@pytest.mark.parametrize("name", ["hrsc", "fair1m", "soda-a"])
def test_the_stated_size_is_compared_with_the_image(name: str, put) -> None:
    labels, images = put(name)
    file = next(path for path in sorted(labels.rglob("a b.*")))
    file.write_text(file.read_text("utf-8").replace("200", "400", 1), encoding="utf-8")
    report = LabelReport()
    records = load_dataset(labels, images, CLASSES, report=report)
    (problem,) = report.problems
    assert (problem.kind, problem.fate) == ("image_size", "kept") and problem.file == str(file)
    assert "400 x 100 pixels, the image has 200 x 100" in problem.message
    assert [(r["width"], len(r["annotations"])) for r in records] == [(200, 0), (200, 2)]
    with pytest.raises(ValueError, match="image_size"):
        load_dataset(labels, images, CLASSES, on_problem="error")


def test_a_format_with_an_argument_and_wrong_arguments(put, tmp_path: Path) -> None:
    labels, images = put("coco-rotated")
    records = load_dataset(labels, images, CLASSES, format=CocoRotated("degrees-cw"))
    assert records[1]["annotations"][0]["bbox"][4] == pytest.approx(30)  # -30 clockwise
    with pytest.raises(ValueError, match="no label format 'voc'"):
        rsd2.register_dataset(NAME, labels, images, "voc", classes=CLASSES)
    with pytest.raises(ValueError, match="unknown_class must be one of"):
        rsd2.register_dataset(NAME, labels, images, classes=CLASSES, unknown_class="x")
    with pytest.raises(ValueError, match="must be a list"):
        rsd2.register_dataset(NAME, labels, images, classes="ship")
    assert NAME not in DatasetCatalog.list()
    broken = tmp_path / "b.json"
    content = json.loads(labels.read_text("utf-8"))
    broken.write_text(json.dumps(content | {"annotations": [{"id": 1}]}))
    with pytest.raises(ValueError, match=r"(?s)No object of .*b\.json.*image_id. is missing"):
        load_dataset(broken, images, CLASSES, format="coco")
