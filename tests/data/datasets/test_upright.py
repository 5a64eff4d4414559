"""Upright boxes of rotated objects: by hand, at the border, and through the catalogs."""

import math

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.datasets import make_upright, register_upright


def record(*annotations, width=100, height=60):
    size = {"height": height, "width": width}
    return {"file_name": "a.png", "image_id": "a", **size, "annotations": list(annotations)}


def rotated(*bbox, **more):
    return {"bbox": list(bbox), "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 1, **more}


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, [40, 25, 20, 10]),
        (90, [45, 20, 10, 20]),
        (-90, [45, 20, 10, 20]),
        (45, [50 - 15 / math.sqrt(2), 30 - 15 / math.sqrt(2)] + [30 / math.sqrt(2)] * 2),
    ],
)
def test_encloses_a_rotated_box(angle, expected):
    (result,) = make_upright([record(rotated(50, 30, 20, 10, angle))])
    (box,) = result["annotations"]
    assert box["bbox"] == pytest.approx(expected)
    assert box["area"] == pytest.approx(expected[2] * expected[3])
    assert (box["bbox_mode"], box["category_id"]) == (BoxMode.XYWH_ABS, 1)


def test_the_polygon_counts_where_there_is_one_and_difficulty_does_not():
    poly = [10.0, 10.0, 30.0, 12.0, 28.0, 20.0, 9.0, 18.0]
    source = record(rotated(20, 15, 20, 8, 5, poly=poly, difficult=2))
    (result,) = make_upright([source])
    (box,) = result["annotations"]
    assert box["bbox"] == [9.0, 10.0, 21.0, 10.0]
    assert "poly" not in box and "difficult" not in box
    assert source["annotations"][0]["poly"] == poly  # the source is as it was


def test_border_cuts_boxes_and_takes_those_outside():
    inside, outside = rotated(98, 58, 10, 10, 0), rotated(120, 30, 10, 10, 0)
    (result,) = make_upright([record(inside, outside)])
    assert [box["bbox"] for box in result["annotations"]] == [[93.0, 53.0, 7.0, 7.0]]


def test_hidden_labels_stay_hidden():
    hidden = record()
    del hidden["annotations"]
    assert "annotations" not in make_upright([hidden])[0]


def test_empty_images_stay_and_upright_boxes_are_refused():
    assert make_upright([record()])[0]["annotations"] == []
    upright = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    with pytest.raises(ValueError, match=r"a\.png is \[1, 2, 3, 4\], which is no rotated one"):
        make_upright([record(upright)])


def test_registered_data_set_reads_its_source_when_asked():
    names = ("upright_source", "upright_view")
    calls = []
    DatasetCatalog.register(names[0], lambda: calls.append(1) or [record(rotated(5, 5, 4, 2, 0))])
    MetadataCatalog.get(names[0]).thing_classes = ["a", "b"]
    try:
        register_upright(names[1], names[0])
        assert not calls
        assert DatasetCatalog.get(names[1])[0]["annotations"][0]["bbox"] == [3.0, 4.0, 4.0, 2.0]
        assert MetadataCatalog.get(names[1]).thing_classes == ["a", "b"]
    finally:
        for name in names:
            MetadataCatalog.pop(name, None)
            DatasetCatalog.pop(name, None)


def test_known_data_sets_have_upright_views_whose_tiles_name_the_whole_images():
    names = set(DatasetCatalog.list())
    assert {"synthetic_train_upright", "synthetic_val_upright"} <= names
    for tiles in ("dota_v1.0_val_1024_200_upright", "dota_v1.0_val_800_200_upright"):
        assert tiles in names
        assert MetadataCatalog.get(tiles).source_dataset == "dota_v1.0_val_upright"
    assert "dota_v1.0_val_upright" in names
