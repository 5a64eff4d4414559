"""Crops for pre-training: boxes move with the image, of any kind; seeds do not know workers."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BoxMode

from rsd2.config import get_config
from rsd2.data.samplers import build_train_loader
from rsd2.projects.object_jepa.crop_mapper import CropDatasetMapper
from rsd2.structures import boxes_to_corners, to_horizontal

SIDE = 160


@pytest.fixture
def record(tmp_path):
    """Bright rotated rectangles on a dark image, some near the border."""
    rng = np.random.default_rng(0)
    image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    annotations = []
    for index in range(9):
        center = (30 + 50 * (index % 3), 30 + 50 * (index // 3))
        box = [*map(float, center), 24.0, 10.0, float(rng.uniform(-90, 90))]
        corners = boxes_to_corners(torch.tensor([box]))[0].numpy()
        cv2.fillPoly(image, [np.round(corners).astype(np.int32)], (255, 255, 255))
        mode = {"bbox_mode": BoxMode.XYWHA_ABS, "category_id": index}
        annotations.append({"bbox": box, **mode})
    cv2.imwrite(str(tmp_path / "scene.png"), image)
    size = {"height": SIDE, "width": SIDE, "image_id": "scene"}
    return {"file_name": str(tmp_path / "scene.png"), **size, "annotations": annotations}


def augmentations(side=96):
    cfg = get_config("ObjectJEPA/configs/common/pretrain.py")
    cfg.dataloader.train.mapper.augmentations[0].crop_size = [side, side]
    return list(instantiate(cfg.dataloader.train.mapper.augmentations))


def mapper(side=96, **options):
    return CropDatasetMapper(True, augmentations=augmentations(side), **options)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_lie_on_what_they_name(record, seed):
    np.random.seed(seed)
    result = mapper()(record)
    image, boxes = result["image"], result["instances"].gt_boxes.tensor
    assert image.shape == (3, 96, 96) and image.dtype == torch.uint8
    assert 0 < len(boxes) < 9
    for cx, cy, w, h, angle in boxes.tolist():
        rectangle = ((cx - 0.5, cy - 0.5), (w - 5, h - 5), -angle)
        inside = np.zeros((96, 96), dtype=np.uint8)
        cv2.fillPoly(inside, [np.round(cv2.boxPoints(rectangle)).astype(np.int32)], 1)
        assert inside.any() and (image[0].numpy()[inside > 0] == 255).mean() > 0.9
    # objects that the crop shows by less than the share are left out, the others are there
    shown = (image[0] > 128).sum() / (24 * 10)
    assert len(boxes) == pytest.approx(shown.item(), abs=1.6)


def test_half_of_the_crops_aim_at_an_object(record):
    lonely = {**record, "annotations": record["annotations"][:1]}  # near a corner
    np.random.seed(0)
    make = mapper(side=48)
    hits = sum(len(make(lonely)["instances"]) for _ in range(300)) / 300
    assert 0.5 < hits < 0.75  # and a uniform crop shows it by chance


def test_small_images_are_padded_to_the_size_of_the_others(record):
    result = mapper(side=200)(record)
    assert result["image"].shape == (3, 200, 200)
    assert len(result["instances"]) == 9 and result["instances"].image_size == (200, 200)


def test_upright_data_sets_give_the_same_boxes(record):
    upright = [{**a, "bbox": [*a["bbox"][:4], 0.0]} for a in record["annotations"]]
    results = []
    for mode in (BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
        converted = [
            {
                **a,
                "bbox": BoxMode.convert(
                    [a["bbox"][0] - 12, a["bbox"][1] - 5, 24.0, 10.0], BoxMode.XYWH_ABS, mode
                )
                if mode != BoxMode.XYWHA_ABS
                else a["bbox"],
                "bbox_mode": mode,
            }
            for a in upright
        ]
        np.random.seed(3)
        results.append(mapper()({**record, "annotations": converted}))
    for other in results[1:]:
        assert torch.allclose(
            other["instances"].gt_boxes.tensor, results[0]["instances"].gt_boxes.tensor, atol=1e-4
        )
        assert other["mask_seed"] == results[0]["mask_seed"]


@pytest.mark.parametrize("flag", ["ignore", "uncertain", "logo", "iscrowd"])
def test_what_is_to_be_ignored_is_no_object(record, flag):
    record["annotations"][4] = {**record["annotations"][4], flag: True}
    classes = mapper(side=200)(record)["instances"].gt_classes.tolist()
    assert classes == [0, 1, 2, 3, 5, 6, 7, 8]


def test_upright_boxes_enclose_the_rotated_ones(record):
    results = []
    for kind in ("rotated", "upright"):
        np.random.seed(1)
        results.append(mapper(box_kind=kind)(record)["instances"].gt_boxes.tensor)
    assert torch.allclose(to_horizontal(results[1]), to_horizontal(results[0]), atol=1e-3)
    assert (results[1][:, 4] % 90 == 0).all()


def test_jitter_stays_within_its_share_of_each_side(record):
    np.random.seed(2)
    plain = mapper(side=200)(record)["instances"].gt_boxes.tensor
    moves = []
    for seed in range(20):
        np.random.seed(2)
        make = mapper(side=200, box_jitter=0.25)
        own = make.make_instances

        def seeded(*arguments, own=own, seed=seed):
            np.random.seed(seed)
            return own(*arguments)

        make.make_instances = seeded
        moved = make(record)["instances"].gt_boxes.tensor
        ratio = moved[:, 2:4] / plain[:, 2:4]
        assert not torch.allclose(moved, plain, atol=0.5)
        assert ratio.min() > 0.749 and ratio.max() < 1.251
        # in the frame of the box: a long thin one is not pushed off its object
        corners = boxes_to_corners(plain)
        axes = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]], dim=1)
        squares = axes.square().sum(dim=2)
        offset = (moved[:, :2] - plain[:, :2])[:, None]
        moves.append((offset * axes).sum(dim=2) / squares)
    moves = torch.cat(moves)
    assert moves.abs().max() <= 0.2501 and (moves.abs().amax(dim=0) > 0.2).all()


@pytest.mark.parametrize("options", [{"box_kind": "tilted"}, {"box_jitter": 1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="box_kind must be one of"):
        mapper(**options)


def test_without_training_there_are_no_objects_and_no_failure(record):
    result = CropDatasetMapper(False, augmentations=augmentations())(record)
    assert "instances" not in result and result["mask_seed"] >= 0


def test_any_number_of_workers_gives_the_same_crops_and_masks(record, build_jepa):
    seen = []
    for workers in (0, 1, 2):
        loader = build_train_loader(
            [record], mapper=mapper(), total_batch_size=2, num_workers=workers, seed=5
        )
        batches = [batch for batch, _ in zip(loader, range(3))]
        model = build_jepa()
        masks = [model.analyze(batch).masks for batch in batches]
        seen.append((batches, masks))
    for batches, masks in seen[1:]:
        for batch, reference in zip(batches, seen[0][0]):
            for one, other in zip(batch, reference):
                assert torch.equal(one["image"], other["image"])
        for one, other in zip(masks, seen[0][1]):
            assert torch.equal(one.hidden, other.hidden)
            assert torch.equal(one.predicted, other.predicted)
    seeds = [x["mask_seed"] for batch in seen[0][0] for x in batch]
    assert len(set(seeds)) == 6
