"""The common DOTA loaders run on a small folder, in worker processes too."""

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import RotatedBoxes
from omegaconf import OmegaConf

from rsd2.data.datasets import register_dota_instances
from rsd2.evaluation import DotaEvaluator
from rsd2.testing import TINY_CLASSES, write_tiny_dota


@pytest.fixture
def dataloader(tmp_path, repository):
    name = "tiny_for_config"
    folder = write_tiny_dota(tmp_path)
    register_dota_instances(name, {"thing_classes": list(TINY_CLASSES)}, *folder)
    loader = LazyConfig.load(str(repository / "configs/common/data/dota.py")).dataloader
    loader.train.dataset.names = loader.test.dataset.names = name
    loader.train.num_workers = 1
    loader.test.num_workers = 0
    yield loader
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_training_batches(dataloader):
    batch = next(iter(instantiate(dataloader.train)))
    assert len(batch) == 2
    for sample in batch:
        assert sample["image"].shape == (3, 800, 800)
        assert isinstance(sample["instances"].gt_boxes, RotatedBoxes)


def test_test_loader_and_evaluator_follow_the_name(dataloader):
    samples = [sample for batch in instantiate(dataloader.test) for sample in batch]
    assert [s["image_id"] for s in samples] == ["P0000", "P0001", "P0002", "P0003"]
    assert all("instances" not in s for s in samples)
    assert dataloader.evaluator.dataset_name == "tiny_for_config"
    dataloader.train.mapper.image_format = "BGR"
    assert dataloader.test.mapper.image_format == "BGR"


def test_default_names_are_registered(repository):
    loader = LazyConfig.load(str(repository / "configs/common/data/dota.py")).dataloader
    for part in (loader.train, loader.test):
        assert part.dataset.names in DatasetCatalog.list()


def test_config_can_be_saved_and_loaded_again(dataloader, tmp_path):
    config = OmegaConf.create({"train": {"output_dir": str(tmp_path)}})
    config.dataloader = dataloader
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml")).dataloader
    again.train.num_workers = 0
    assert len(next(iter(instantiate(again.train)))) == 2
    assert isinstance(instantiate(again.evaluator), DotaEvaluator)
