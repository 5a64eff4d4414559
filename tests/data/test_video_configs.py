"""The loaders of the video datasets: registered names, clips of the size asked for, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from omegaconf import DictConfig, OmegaConf

from rsd2.config import apply_overrides, get_config
from rsd2.data.datasets import load_rscardata
from rsd2.evaluation import DroneCrowdEvaluator, MovingObjectEvaluator
from rsd2.synthetic import VideoConfig, write_videos

CONFIGS = {  # -> height and width of clips of frames of 40 x 64 pixels: training, test
    "rscardata": ((40, 64), (40, 64)),
    "synthetic_video": ((40, 64), (40, 64)),
    "viso": ((512, 512), (1024, 1024)),
    "dronecrowd": ((40, 64), (40, 64)),  # no larger than a crop
}


def load(name: str) -> DictConfig:
    dataloader = get_config(f"common/data/{name}.py").dataloader
    return OmegaConf.create(
        {"dataloader": dataloader, "train": {"output_dir": "out"}}, flags={"allow_objects": True}
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    root = tmp_path_factory.mktemp("videos")
    config = VideoConfig(size=(40, 64), num_frames=6, density=30.0)
    write_videos(root, "train", 1, config, progress=False)
    records = load_rscardata(root, "train", "new")
    box = {"bbox": [10, 12, 6, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return [{**record, "annotations": [box]} for record in records]


@pytest.mark.parametrize("name", CONFIGS)
def test_loaders_map_clips_and_names_are_registered(name: str, records: list[dict]) -> None:
    loader = load(name).dataloader
    for part, size in zip((loader.train, loader.test), CONFIGS[name]):
        assert part.dataset.names in DatasetCatalog.list()
        result = instantiate(part.mapper)(records[5])
        assert result["frames"].shape == (5, 3, *size)
        assert result["height"] == 40 and ("instances" in result) == part.mapper.is_train
    kind = DroneCrowdEvaluator if name == "dronecrowd" else MovingObjectEvaluator
    assert isinstance(instantiate(loader.evaluator), kind)


def test_boxes_grow_with_resized_frames(records: list[dict]) -> None:
    mapper = instantiate(load("viso").dataloader.train.mapper)
    boxes = mapper(records[5])["instances"].gt_boxes.tensor
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    assert sides == [pytest.approx([6 * 512 / 64, 5 * 512 / 40])]


def test_released_order_is_two_overrides(records: list[dict], repository: Path) -> None:
    cfg = load("rscardata")
    stated = (repository / "configs/common/data/rscardata.py").read_text().split("``")
    overrides = next(part for part in stated if "normalize_first" in part).split()
    cfg = apply_overrides(cfg, overrides)
    result = instantiate(cfg.dataloader.train.mapper)(records[5])
    assert result["normalized"] is True and result["frames"].dtype == torch.float32
    assert result["frames"].min() < 0


def test_shorter_clips_at_test_are_one_override(records: list[dict]) -> None:
    cfg = apply_overrides(load("rscardata"), ["dataloader.train.mapper.num_frames=3"])
    assert instantiate(cfg.dataloader.test.mapper)(records[5])["frames"].shape[0] == 3
