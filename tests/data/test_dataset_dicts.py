"""Dataset dicts: the place of an object, however it is given, and what must not be missing."""

import numpy as np
import pytest
from detectron2.structures import BoxMode

from rsd2.data.dataset_dicts import check_record, polygon_of
from rsd2.data.datasets import make_box_tiles, make_upright, make_virtual_tiles
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.splits import unit_id
from rsd2.data.windows.box_tiling import BoxTiling
from rsd2.data.windows.tiling import TilingParameters
from rsd2.evaluation.matching.boxes import BoxTruth
from rsd2.evaluation.scoring.dota import GroundTruth

RECTANGLE = [[10, 20], [40, 20], [40, 30], [10, 30]]


@pytest.mark.parametrize(
    "place",
    [
        {"poly": [10, 20, 40, 20, 40, 30, 10, 30], "bbox": [1, 2, 3, 4]},
        {"bbox": [25, 25, 30, 10, 0]},
        {"bbox": (25.0, 25.0, 10.0, 30.0, 90.0), "bbox_mode": BoxMode.XYWHA_ABS},
        {"bbox": [10, 20, 30, 10], "bbox_mode": BoxMode.XYWH_ABS},
        {"bbox": np.array([10, 20, 40, 30]), "bbox_mode": int(BoxMode.XYXY_ABS), "poly": None},
    ],
)
def test_every_way_to_give_a_place_is_the_same_quadrilateral(place):
    polygon = polygon_of(place, "a")
    assert sorted(polygon.round(9).tolist()) == sorted(RECTANGLE)
    assert polygon.dtype == np.float64


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"category_id": 0}, "an object of image 'a' has neither 'poly'"),
        ({"bbox": [1, 2, 3, 4]}, "an upright one .* with its 'bbox_mode'"),
        ({"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYWH_REL}, "neither 'poly'"),
        ({"poly": [1, 2, 3, 4, 5, 6]}, "image 'a' has 6 numbers in 'poly'"),
    ],
)
def test_objects_without_a_place_are_named(place, words):
    with pytest.raises(ValueError, match=words):
        polygon_of(place, "a")


def plain(*annotations):
    """A dict as Detectron2's users write it."""
    size = {"height": 100, "width": 130}
    return {"file_name": "a.png", "image_id": 7, **size, "annotations": list(annotations)}


def test_virtual_tiles_of_plain_dicts():
    rotated = {"bbox": [25, 25, 30, 10, 30], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 1}
    upright = {"bbox": [80, 70, 20, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    source = plain(rotated, upright | {"iscrowd": 1, "track_id": 5, "segmentation": [[1] * 8]})
    tiles = make_virtual_tiles([source], TilingParameters(64, 16))
    assert tiles[0]["image_id"] == "7__64__0___0" and tiles[0]["tile"]["source_id"] == 7
    (one,) = tiles[0]["annotations"]
    np.testing.assert_allclose(one["bbox"], rotated["bbox"], atol=1e-2)
    assert (one["category_id"], one["difficult"], one["iscrowd"]) == (1, 0, 0)
    (tile,) = (t for t in tiles if t["tile"]["x"] == 66 and t["tile"]["y"] == 36)
    (two,) = tile["annotations"]
    assert two["poly"] == [14, 34, 34, 34, 34, 44, 14, 44]
    assert (two["iscrowd"], two["track_id"], two["bbox_mode"]) == (1, 5, BoxMode.XYWHA_ABS)
    assert "segmentation" not in two
    assert GroundTruth.from_dicts([plain(rotated)], ["a", "b"]).difficult.tolist() == [0]


USERS = {
    "virtual tiles": (lambda r: make_virtual_tiles([r], TilingParameters(64, 16)), "image_id"),
    "tiles of unknown size": (
        lambda r: make_virtual_tiles([r], TilingParameters(64, 16)),
        "height",
    ),
    "windows of boxes": (lambda r: make_box_tiles([r], BoxTiling()), "width"),
    "upright boxes": (lambda r: make_upright([r]), "height"),
    "rotated ground truth": (lambda r: GroundTruth.from_dicts([r], ["a"]), "image_id"),
    "upright ground truth": (lambda r: BoxTruth.from_dicts([r], ["a"]), "image_id"),
    "shares": (unit_id, "image_id"),
    "the mapper": (RotatedDatasetMapper(True, augmentations=[]), "width"),
}


@pytest.mark.parametrize("user", USERS)
def test_a_missing_key_is_a_sentence_that_names_the_record(user):
    call, key = USERS[user]
    record = plain()
    del record[key]
    with pytest.raises(
        ValueError, match=f"dict of file_name 'a.png'.* has no '{key}'; the function"
    ):
        call(record)


def test_a_record_without_any_name_is_told_by_its_keys():
    with pytest.raises(ValueError, match=r"of the keys \['height'\] has no 'width'"):
        check_record({"height": 5}, "height", "width")
