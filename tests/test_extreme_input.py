"""No object, 3000, one-pixel and whole-image ones, one class: through every part of the chain."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances, RotatedBoxes

from rsd2.config import load_config
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.evaluation import DotaEvaluator
from rsd2.modeling import AngleCoder, HungarianMatcher, SetCriterion
from rsd2.modeling.matcher import Predictions, Targets
from rsd2.structures import boxes_to_corners
from rsd2.testing import shrink

CONFIG = Path(__file__).resolve().parents[1] / "configs/rotated_deformable_detr_small_synthetic.py"
SIDE = 128
GRID = [(x * 2.1 + 1.5, y * 2.5 + 1.5, 1.8, 1.0, 0.0) for y in range(50) for x in range(60)]
CASES = {
    "no object": [],
    "one pixel": [(5.5, 7.5, 1.0, 1.0, 0.0), (0.5, 127.5, 1.0, 1.0, 0.0)],
    "whole image": [(64.0, 64.0, 128.0, 128.0, 0.0)],
    "3000 objects": GRID,
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def record(request, tmp_path):
    """Dataset dict of one image with the objects of a case, all of the only class."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    annotations = [
        {
            "bbox": list(box),
            "bbox_mode": BoxMode.XYWHA_ABS,
            "category_id": 0,
            "poly": boxes_to_corners(torch.tensor(box).double()).flatten().tolist(),
            "difficult": 0,
            "iscrowd": 0,
        }
        for box in request.param
    ]
    size = {"height": SIDE, "width": SIDE}
    name = str(tmp_path / "a.png")
    return {"file_name": name, "image_id": "a", **size, "annotations": annotations}


@pytest.fixture(scope="module")
def model():
    cfg = shrink(load_config(CONFIG)).model
    cfg.num_classes = 1
    torch.manual_seed(0)
    return instantiate(cfg)


def test_mapper_model_and_losses(record, model):
    sample = RotatedDatasetMapper(True, augmentations=[])(record)
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).reshape(-1, 5)
    torch.testing.assert_close(sample["instances"].gt_boxes.tensor, boxes)
    losses = model.train()([sample, sample])
    assert all(torch.isfinite(value) for value in losses.values())
    located = sum(value for name, value in losses.items() if "loss_l1" in name)
    assert (located > 0) == (len(boxes) > 0)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    with torch.no_grad():
        found = model.eval()([sample])[0]["instances"]
    assert len(found) > 0 and torch.isfinite(found.pred_boxes.tensor).all()
    assert (found.pred_classes == 0).all()


@pytest.mark.parametrize("queries", [0, 1, 7])
def test_matcher_and_losses_of_any_number_of_predictions(record, queries):
    scale = torch.tensor([SIDE, SIDE, SIDE, SIDE, 1.0])
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).reshape(-1, 5) / scale
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    targets = [Targets(labels, boxes, AngleCoder().encode(boxes))]
    shapes = ((1, queries, 1), (1, queries, 4), (1, queries, 180))
    given = Predictions(*(torch.rand(shape, requires_grad=True) for shape in shapes))
    matcher = HungarianMatcher()
    rows, columns = matcher(given, targets)[0]
    assert len(rows) == len(set(columns.tolist())) == min(queries, len(boxes))
    losses, _ = SetCriterion(matcher).matched_losses(given, targets, max(len(boxes), 1))
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()


def test_evaluator(record, tmp_path):
    DatasetCatalog.register("extreme", lambda: [record])
    MetadataCatalog.get("extreme").set(thing_classes=["thing"], evaluator_type="dota")
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).reshape(-1, 5)
    try:
        scores = [evaluate(boxes[:count], tmp_path, record) for count in (len(boxes), 0)]
    finally:
        DatasetCatalog.remove("extreme")
        MetadataCatalog.remove("extreme")
    if len(boxes):
        assert scores == [pytest.approx(100, abs=1e-9), 0]
    else:
        assert all(map(math.isnan, scores))


def evaluate(boxes, folder, record):
    """AP50:95 of boxes as predictions."""
    evaluator = DotaEvaluator("extreme", output_dir=folder / "out", max_detections=5000)
    evaluator.reset()
    found = Instances((SIDE, SIDE))
    found.pred_boxes = RotatedBoxes(boxes)
    found.scores = torch.linspace(0.9, 0.1, len(boxes))
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]["AP"]
