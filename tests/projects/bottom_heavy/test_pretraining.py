"""Scale match in its config: images shrink to the sizes of the target, and a step trains."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

from rsd2.config import load_config
from rsd2.testing import shrink

CONFIG = "projects/BottomHeavy/configs/faster_rcnn_r50_fpn_coco_pretrain.py"
MAPPER = "dataloader.train.mapper"


def write_squares(folder, side):
    """Dataset dicts of three images of 128 pixels, with a square of one size in each."""
    folder.mkdir()
    records = []
    for index in range(3):
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), np.full((128, 128, 3), 40 * index, dtype=np.uint8))
        box = {"bbox": [30.0, 20.0, side, side], "bbox_mode": BoxMode.XYWH_ABS}
        size = {"height": 128, "width": 128, "image_id": index}
        crowd = {**box, "category_id": 1, "iscrowd": 1}
        annotations = [{**box, "category_id": 5, "iscrowd": 0}, crowd]
        records.append({"file_name": str(path), **size, "annotations": annotations})
    return records


@pytest.fixture
def names(tmp_path):
    """Names of a dataset of squares of 40 pixels, and of one with squares of 20."""
    made = {f"pretrain_{side}": write_squares(tmp_path / str(side), side) for side in (40, 20)}
    for name, records in made.items():
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).thing_classes = [str(index) for index in range(80)]
    yield list(made)
    for name in made:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("monotone", [False, True])
def test_images_shrink_to_the_target_and_a_step_trains(names, monotone, repository: Path):
    source = f"{MAPPER}.augmentations.0.source={names[0] if monotone else 'null'}"
    target = f"{MAPPER}.augmentations.0.target={names[1]}"
    data = f"dataloader.train.dataset.names={names[0]}"
    cfg = shrink(load_config(repository / CONFIG, [data, target, source]))
    batch = next(iter(instantiate(cfg.dataloader.train)))

    for x in batch:
        assert x["image"].shape == (3, 64, 64)
        boxes = x["instances"].gt_boxes.tensor
        assert (boxes[:, 2:] - boxes[:, :2]).tolist() == [[20.0, 20.0]], "and the crowd is gone"

    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with EventStorage():
        losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses


def test_images_whose_objects_vanish_train_as_background(names, repository: Path):
    cfg = shrink(load_config(repository / CONFIG, [f"{MAPPER}.augmentations.0.target={names[1]}"]))
    (record, *_) = DatasetCatalog.get(names[0])
    record["annotations"][0]["bbox"] = [30.0, 20.0, 1.9, 400.0]
    instances = instantiate(cfg.dataloader.train.mapper)(record)["instances"]
    assert len(instances) == 0
