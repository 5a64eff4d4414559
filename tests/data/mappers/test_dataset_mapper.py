"""What comes out of the mapper: contents, filters, caches, determinism, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform
from PIL import Image

from rsd2.data.datasets import load_dota_instances, make_virtual_tiles
from rsd2.data.mappers import image_mapper
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection, Rot90Transform
from rsd2.data.windows.tiling import PAD_COLOR, TilingParameters
from rsd2.structures import boxes_to_corners
from rsd2.testing import TINY_CLASSES, write_tiny_dota


@pytest.fixture
def records(tmp_path):
    """Four images of 64 x 80, the last one without objects."""
    return load_dota_instances(*write_tiny_dota(tmp_path, image_size=(64, 80)), TINY_CLASSES)


def _record(tmp_path, boxes, size=(100, 120), **extra):
    """One black image with boxes (x0, y0, x1, y1)."""
    Image.new("RGB", size[::-1]).save(tmp_path / "a.png")
    annotations = []
    for x0, y0, x1, y1 in boxes:
        box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0]
        annotation = {"bbox": box, "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0}
        poly = [x0, y0, x1, y0, x1, y1, x0, y1]
        annotations.append(annotation | {"poly": poly, "difficult": 0, "iscrowd": 0} | extra)
    record = {"file_name": str(tmp_path / "a.png"), "image_id": "a", "annotations": annotations}
    return record | {"height": size[0], "width": size[1]}


def test_training_output(records):
    before = copy.deepcopy(records[0])
    result = RotatedDatasetMapper(True, augmentations=[T.ResizeShortestEdge(128, 1000)])(records[0])
    assert records[0] == before, "the dataset dict is shared between epochs"
    assert result["image"].shape == (3, 128, 160) and result["image"].dtype == torch.uint8
    assert (result["height"], result["width"], result["image_id"]) == (64, 80, "P0000")
    assert result["file_name"] == before["file_name"] and "annotations" not in result
    instances = result["instances"]
    assert instances.image_size == (128, 160)
    expected = torch.tensor([a["bbox"] for a in before["annotations"]])
    expected[:, :4] *= 2
    torch.testing.assert_close(instances.gt_boxes.tensor, expected, atol=1e-3, rtol=0)
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [0, 1, 0] and instances.gt_classes.dtype == torch.int64
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}
    pickle.dumps(result)


def test_image_without_objects_gives_empty_instances(records):
    for record in (records[3], {k: v for k, v in records[3].items() if k != "annotations"}):
        mapper = RotatedDatasetMapper(
            True, augmentations=[Random90Rotation(1.0)], with_polygons=True, with_difficult=True
        )
        instances = mapper(record)["instances"]
        assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 5)
        assert instances.gt_polygons.shape == (0, 4, 2) and instances.gt_classes.shape == (0,)


def test_inference_has_no_instances_and_keeps_the_original_size(records):
    result = RotatedDatasetMapper(False, augmentations=[T.ResizeShortestEdge(32, 1000)])(records[0])
    assert "instances" not in result and "annotations" not in result
    assert result["image"].shape == (3, 32, 40) and (result["height"], result["width"]) == (64, 80)


def test_channel_order(records):
    rgb = RotatedDatasetMapper(True, augmentations=[])(records[0])["image"]
    bgr = RotatedDatasetMapper(True, augmentations=[], image_format="BGR")(records[0])["image"]
    assert (rgb.flip(0) == bgr).all() and (rgb != bgr).any()


@pytest.mark.parametrize("quarter_turns", range(4))
def test_first_vertex_moves_along(tmp_path, quarter_turns):
    record = _record(tmp_path, [(10, 20, 50, 40)])
    turn = Rot90Transform(100, 120, quarter_turns)
    mapper = RotatedDatasetMapper(True, augmentations=[turn], with_polygons=True)
    polygon = mapper(record)["instances"].gt_polygons[0].numpy()
    expected = turn.apply_coords(np.array(record["annotations"][0]["poly"]).reshape(4, 2))
    np.testing.assert_allclose(polygon, expected)


def test_objects_cut_by_a_crop_are_kept_by_their_visible_share(tmp_path):
    # The crop shows columns 0 to 49: shares 1, 0.8, 0.6, 0.
    record = _record(tmp_path, [(0, 0, 10, 5), (42, 0, 52, 5), (44, 9, 54, 14), (60, 0, 70, 5)])
    crop = [CropTransform(0, 0, 50, 100)]

    def kept(**options):
        instances = RotatedDatasetMapper(True, augmentations=crop, **options)(record)["instances"]
        return instances.gt_boxes.tensor[:, 0].tolist()

    assert kept() == [5, 47]
    assert kept(min_visible=0.6) == [5, 47, 49]
    assert kept(min_visible=0.0) == [5, 47, 49], "an object that shows nothing is never kept"
    assert kept(min_visible=1.0) == [5]


def test_objects_cut_by_their_tile_survive_flips(tmp_path):
    # 0.3 of the first object lies in the tile, nothing of the second.
    record = _record(tmp_path, [(-7, 0, 3, 5), (-20, 0, -5, 5)])
    for augmentation in (RandomFlipDirection(1, 0, 0), T.ResizeScale(0.5, 0.5, 100, 120)):
        mapper = RotatedDatasetMapper(True, augmentations=[augmentation])
        assert len(mapper(record)["instances"]) == 1


def test_one_pixel_boxes_survive_unless_a_minimum_is_asked_for(tmp_path):
    record = _record(tmp_path, [(5, 5, 6, 6), (10, 10, 30, 13), (0, 0, 120, 100)])
    assert len(RotatedDatasetMapper(True, augmentations=[])(record)["instances"]) == 3
    assert len(RotatedDatasetMapper(True, augmentations=[], min_side=2)(record)["instances"]) == 2
    shrink = [T.ResizeTransform(100, 120, 50, 60)]
    assert len(RotatedDatasetMapper(True, augmentations=shrink)(record)["instances"]) == 3
    mapper = RotatedDatasetMapper(True, augmentations=shrink, min_side=2)
    assert len(mapper(record)["instances"]) == 1, "sides are measured after augmentation"


@pytest.mark.parametrize("difficult", [1, 2])
def test_difficult_and_crowd_objects(tmp_path, difficult):
    record = _record(tmp_path, [(5, 5, 20, 10)], difficult=difficult)
    mapper = RotatedDatasetMapper(True, augmentations=[], with_difficult=True)
    assert mapper(record)["instances"].gt_difficult.tolist() == [difficult]
    mapper = RotatedDatasetMapper(True, augmentations=[], keep_difficult=False)
    assert len(mapper(record)["instances"]) == 0
    record["annotations"][0]["iscrowd"] = 1
    mapper = RotatedDatasetMapper(True, augmentations=[])
    assert len(mapper(record)["instances"]) == 0


def test_boxes_are_canonical_in_float32(tmp_path):
    record = _record(tmp_path, [(5, 5, 20, 90), (10, 10, 40, 40)])
    record["annotations"][1]["bbox"] = [25.0, 25.0, 30.0 + 1e-9, 30.0, 80.0]
    boxes = RotatedDatasetMapper(True, augmentations=[])(record)["instances"].gt_boxes.tensor
    assert boxes[0, 2] == 85 and boxes[0, 4] == -90
    assert boxes[1, 2] == boxes[1, 3] and boxes[1, 4] == -10, "squares have angles below 45"


def test_three_thousand_objects(tmp_path):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 90, (3000, 2))
    record = _record(tmp_path, [(x, y, x + 6, y + 3) for x, y in starts])
    augmentations = [T.RandomRotation([-180, 180]), RandomFlipDirection()]
    result = RotatedDatasetMapper(True, augmentations=augmentations, min_visible=0)(record)
    assert len(result["instances"]) == 3000


def test_same_seed_same_sample(records):
    augmentations = [
        RandomFlipDirection(),
        T.RandomRotation([-180, 180]),
        T.RandomBrightness(0.5, 1.5),
        T.ResizeShortestEdge([40, 200], 300, "range"),
    ]
    mapper = RotatedDatasetMapper(True, augmentations=augmentations)

    def sample(seed):
        np.random.seed(seed)
        return mapper(records[0])

    first, second, third = sample(1), sample(1), sample(2)
    assert (first["image"] == second["image"]).all()
    boxes = [result["instances"].gt_boxes.tensor for result in (first, second, third)]
    assert (boxes[0] == boxes[1]).all()
    assert first["image"].shape != third["image"].shape or (first["image"] != third["image"]).any()


def test_wrong_size_missing_and_truncated_images_are_named(records, tmp_path):
    mapper = RotatedDatasetMapper(True, augmentations=[])
    with pytest.raises(ValueError, match=r"P0000\.png has 80 x 64 pixels.*99 x 64.*anew"):
        mapper(records[0] | {"width": 99})
    path = tmp_path / "images" / "P0000.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"P0000\.png.*download"):
        mapper(records[0])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"P0000\.png"):
        mapper(records[0])


def test_boxes_that_are_not_rotated_are_refused(records):
    annotation = records[0]["annotations"][0]
    annotation["bbox"], annotation["bbox_mode"] = [1, 2, 3, 4], BoxMode.XYXY_ABS
    with pytest.raises(ValueError, match=r"P0000\.png.*XYWHA_ABS"):
        RotatedDatasetMapper(True, augmentations=[])(records[0])


@pytest.mark.parametrize(
    "options",
    [{"image_format": "rgb"}, {"min_visible": 1.5}, {"min_side": -1}, {"cached_images": -1}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        RotatedDatasetMapper(True, augmentations=[], **options)


def test_virtual_tiles_decode_each_image_once_in_order(records, monkeypatch):
    reads = []
    read = image_mapper.read_image
    monkeypatch.setattr(image_mapper, "read_image", lambda p: reads.append(p) or read(p))
    tiles = make_virtual_tiles(records, TilingParameters(32, 8))
    mapper = RotatedDatasetMapper(False, augmentations=[])
    for tile in tiles:
        assert mapper(tile)["image"].shape == (3, 32, 32)
    assert len(tiles) > 10 and len(reads) == 4
    for tile in tiles[:3]:
        RotatedDatasetMapper(False, augmentations=[], cached_images=0)(tile)
    assert len(reads) == 7


def test_decoded_copies_are_read_instead_of_the_image_until_it_changes(records, tmp_path):
    tiles = make_virtual_tiles(records, TilingParameters(100, 8))
    folder = tmp_path / "decoded"
    plain = RotatedDatasetMapper(True, augmentations=[])
    mapped = RotatedDatasetMapper(True, augmentations=[], decoded_cache_dir=folder, cached_images=0)
    for tile in tiles:
        assert (plain(tile)["image"] == mapped(tile)["image"]).all()
    copies = sorted(folder.iterdir())
    assert len(copies) == 4 and all(path.suffix == ".npy" for path in copies)
    assert mapped(tiles[0])["image"][:, 99, 99].tolist() == list(PAD_COLOR)
    Image.new("RGB", (80, 64)).save(tiles[0]["file_name"])
    assert (mapped(tiles[0])["image"][:, :64, :80] == 0).all(), "a changed image is decoded anew"


def test_virtual_tile_of_a_replaced_image_is_refused(records):
    tiles = make_virtual_tiles(records, TilingParameters(32, 8))
    Image.new("RGB", (90, 64)).save(tiles[0]["file_name"])
    with pytest.raises(ValueError, match="90 x 64.*80 x 64"):
        RotatedDatasetMapper(True, augmentations=[])(tiles[0])


def test_boxes_stay_on_their_pixels_through_a_pipeline(records):
    augmentations = [
        RandomFlipDirection(0.3, 0.3, 0.3),
        Random90Rotation(),
        T.RandomRotation([-90, 90]),
        T.ResizeShortestEdge([100, 160], 400),
    ]
    mapper = RotatedDatasetMapper(True, augmentations=augmentations)
    for _ in range(10):
        record = copy.deepcopy(records[0])
        record["annotations"] = record["annotations"][1:2]
        result = mapper(record)
        corners = boxes_to_corners(result["instances"].gt_boxes.tensor)[0]
        center = corners.mean(dim=0).round().long()
        patch = result["image"][:, center[1] - 1 : center[1] + 1, center[0] - 1 : center[0] + 1]
        assert (patch[2] < 60).all(), "ships have no blue"
