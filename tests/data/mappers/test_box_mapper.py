"""The mapper of upright boxes: windows, erasing, flips, and boxes that end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from rsd2.data.mappers.box_mapper import BoxDatasetMapper, erase_boxes


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """A 40 x 30 image whose red channel counts columns and green channel rows."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = np.arange(40), np.arange(30)[:, None]
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return {
        "file_name": str(path),
        "image_id": "a.png",
        "height": 30,
        "width": 40,
        "annotations": [
            box(4, 5, 6, 8, 1),
            box(20, 10, 4, 4, 0, ignore=True),
            box(36, 26, 10, 10, 2),
        ],
    }


def box(x: float, y: float, width: float, height: float, label: int, **flags) -> dict:
    fields = {"bbox": [x, y, width, height], "bbox_mode": BoxMode.XYWH_ABS, "category_id": label}
    return {**fields, "iscrowd": 0, "ignore": False, "uncertain": False, "logo": False, **flags}


def test_image_and_boxes(record: dict) -> None:
    result = BoxDatasetMapper(True, augmentations=[])(record)
    assert result["image"].shape == (3, 30, 40)
    assert result["image"][0, 3].tolist() == list(range(40))
    instances = result["instances"]
    assert instances.gt_classes.tolist() == [1, 2]  # without the region to ignore
    assert instances.gt_boxes.tensor.tolist() == [[4, 5, 10, 13], [36, 26, 40, 30]]  # cut
    assert len(record["annotations"]) == 3
    assert "annotations" not in result


def test_flip_moves_pixels_and_boxes_together(record: dict) -> None:
    result = BoxDatasetMapper(True, augmentations=[T.RandomFlip(prob=1.0)])(record)
    assert result["instances"].gt_boxes.tensor[0].tolist() == [30, 5, 36, 13]
    assert result["image"][0, 5, 30:36].tolist() == [9, 8, 7, 6, 5, 4]


def test_a_virtual_window_is_cropped(record: dict) -> None:
    record["tile"] = {
        "source_id": "a.png", "x": 10, "y": 5, "width": 20, "height": 10, "virtual": True,
        "source_width": 40, "source_height": 30,
    }  # fmt: skip
    record["height"], record["width"], record["annotations"] = 10, 20, [box(1, 2, 3, 4, 0)]
    result = BoxDatasetMapper(True, augmentations=[])(record)
    assert result["image"][0, 0].tolist() == list(range(10, 30))
    assert result["image"][1, :, 0].tolist() == list(range(5, 15))
    assert result["instances"].gt_boxes.tensor.tolist() == [[1, 2, 4, 6]]
    record["tile"]["source_width"] = 50
    with pytest.raises(ValueError, match="50 x 30"):
        BoxDatasetMapper(True, augmentations=[])(record)


def test_regions_to_ignore_are_painted_in_training(record: dict) -> None:
    plain = BoxDatasetMapper(True, augmentations=[])(record)["image"]
    erased = BoxDatasetMapper(True, augmentations=[], erase_ignored=True)(record)["image"]
    changed = (plain != erased).any(dim=0).nonzero()
    assert changed.min(dim=0).values.tolist() == [10, 20]
    assert changed.max(dim=0).values.tolist() == [13, 23]
    # columns 20 to 23 and rows 10 to 13 have the means 21.5 and 11.5
    assert erased[:, 12, 21].tolist() == [22, 12, 0]
    test = BoxDatasetMapper(False, augmentations=[], erase_ignored=True)(record)
    assert torch.equal(test["image"], plain)
    assert "instances" not in test


def test_small_boxes_are_left_out(record: dict) -> None:
    mapper = BoxDatasetMapper(
        True, augmentations=[T.Resize((15, 20))], min_side=2.5
    )  # half: 3 x 4 px stay, 2 x 2 px do not
    assert mapper(record)["instances"].gt_classes.tolist() == [1]


def test_images_without_boxes(record: dict) -> None:
    record["annotations"] = []
    instances = BoxDatasetMapper(True, augmentations=[T.RandomFlip()])(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64


def test_boxes_wholly_outside_vanish(record: dict) -> None:
    record["annotations"] = [box(50, 5, 4, 4, 0), box(-9, 5, 4, 4, 0)]
    assert len(BoxDatasetMapper(True, augmentations=[])(record)["instances"]) == 0


def test_rotated_boxes_are_refused(record: dict) -> None:
    record["annotations"][0] |= {"bbox": [1, 2, 3, 4, 5], "bbox_mode": BoxMode.XYWHA_ABS}
    with pytest.raises(ValueError, match="a.png"):
        BoxDatasetMapper(True, augmentations=[])(record)


def test_erasing_outside_the_image_changes_nothing() -> None:
    image = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    outside = np.array([[-4.0, -4.0, -1.0, -1.0], [7.0, 0.0, 9.0, 4.0]])
    np.testing.assert_array_equal(erase_boxes(image, outside), image)
    erased = erase_boxes(image, np.array([[-2.0, -2.0, 1.5, 0.5]]))
    assert (erased[0, :2] == erased[0, 0]).all()
    np.testing.assert_array_equal(erased[1:], image[1:])
