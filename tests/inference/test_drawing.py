"""Pictures of labels and detections side by side, for every kind of box and of input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances, RotatedBoxes
from torch import nn

from rsd2.data.mappers.box_mapper import BoxDatasetMapper
from rsd2.data.mappers.clip_mapper import ClipDatasetMapper
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.inference.drawing import draw_beside_truth

SIZE = 384  # a cell of the sheet, so that its pixels are those of the image
MAPPERS = {
    "rotated": RotatedDatasetMapper(is_train=False, augmentations=[]),
    "upright": BoxDatasetMapper(is_train=False, augmentations=[]),
    "clip": ClipDatasetMapper(is_train=False),
    "normalised clip": ClipDatasetMapper(is_train=False, normalize_first=True),
}


class Detector(nn.Module):
    """A detector that always finds one object."""

    def __init__(self, boxes: Boxes | RotatedBoxes) -> None:
        super().__init__()
        self.boxes = boxes

    def forward(self, inputs: list[dict]) -> list[dict]:
        found = Instances((SIZE, SIZE), pred_boxes=self.boxes)
        found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
        return [{"instances": found}]


@pytest.mark.parametrize("kind", MAPPERS)
def test_labels_and_detections_are_drawn_where_they_are(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    color = (200, 100, 50)
    cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), color, dtype=np.uint8))
    label, found = [100, 200, 80, 40], [100.0, 200.0, 180.0, 240.0]
    annotation = {"bbox": label, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    boxes = Boxes(torch.tensor([found]))
    if kind == "rotated":
        annotation = {"bbox": [140, 220, 80, 40, 0], "bbox_mode": BoxMode.XYWHA_ABS}
        annotation["category_id"] = 0
        boxes = RotatedBoxes(torch.tensor([[140.0, 220.0, 80.0, 40.0, 0.0]]))
    record = {"file_name": str(path), "image_id": "blue", "height": SIZE, "width": SIZE}

    sheet = draw_beside_truth(
        {"found": Detector(boxes)},
        [{**record, "annotations": [annotation]}, {**record, "annotations": []}],
        MAPPERS[kind],
        ["plane"],
        threshold=0.5,
        columns=2,
    )
    background = np.array(color[::-1])
    inside = (sheet[: SIZE + 4, : 2 * SIZE + 8].astype(int) - background).any(-1)
    for left in (0, SIZE + 2):
        picture = inside[:SIZE, left : left + SIZE]
        # The frame of the box is there, what it frames and what is far from it is not painted.
        assert picture[205:235, 98:106].any(1).all() and picture[205:235, 176:186].any(1).all()
        assert not picture[210:230, 110:170].any() and not picture[300:380, 10:370].any()


@pytest.mark.parametrize(("side", "is_named"), [(16, False), (60, True)])
def test_texts_do_not_hide_small_objects(side: int, is_named: bool, tmp_path: Path) -> None:
    path = tmp_path / "black.png"
    cv2.imwrite(str(path), np.zeros((SIZE, SIZE, 3), dtype=np.uint8))
    box = [200, 200, side, side]
    annotation = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {"file_name": str(path), "image_id": "black", "height": SIZE, "width": SIZE}
    sheet = draw_beside_truth(
        {},
        [{**record, "annotations": [annotation]}],
        MAPPERS["upright"],
        ["plane"],
        threshold=0.5,
        columns=1,
    )
    above = sheet[150 : 200 - 4, 150:350]
    assert above.any() == is_named
