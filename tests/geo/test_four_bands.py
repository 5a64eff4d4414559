"""A model of four bands: from labelled scenes with coordinates through a training step to a map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from rasterio.transform import Affine

from rsd2 import load_detector
from rsd2.commands import predict_scene
from rsd2.config import load_config
from rsd2.data.datasets import register_scenes
from rsd2.data.mappers.transforms import RotatedAugInput
from rsd2.geo.vector_files import read_metadata

CONFIG = """
from detectron2.config import LazyCall as L
from rsd2.config import get_config
from rsd2.geo import Radiometry

dataloader = get_config("common/data/sen2ships.py").dataloader
model = get_config("common/models/rotated_faster_rcnn_small.py").model
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

bands = ["red", "green", "blue", "nir"]
dataloader.train.mapper.radiometry = L(Radiometry)(bands=bands, scaling="range", low=0, high=4000)
model.backbone.bottom_up.in_channels = 4
model.pixel_mean, model.pixel_std = [124.0, 116.0, 104.0, 110.0], [58.0, 57.0, 57.0, 60.0]
model.roi_heads.num_classes = 1
"""


@pytest.fixture
def scene(tmp_path: Path, write) -> Path:
    """Scene of four 16-bit bands, with a label of 20 x 8 pixels around its brightest place."""
    values = np.random.default_rng(0).integers(500, 1500, (128, 128, 4), dtype=np.uint16)
    values[60:68, 50:70, 3] = 3800
    transform = Affine(2.0, 0, 500000, 0, -2.0, 6_600_000)
    corners = [transform @ xy for xy in [(50, 60), (70, 60), (70, 68), (50, 68), (50, 60)]]
    feature = {
        "type": "Feature",
        "properties": {"class": "ship"},
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in corners]]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    labels = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (tmp_path / "port.geojson").write_text(json.dumps(labels))
    return write(
        tmp_path / "port.tif",
        values,
        crs="EPSG:32633",
        transform=transform,
        descriptions=["red", "green", "blue", "nir"],
    )


def test_four_bands_go_from_training_to_a_map(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "four.py").write_text(CONFIG)
    cfg = load_config(tmp_path / "four.py")
    cfg.dataloader.train.mapper.augmentations = []
    labels = scene.with_suffix(".geojson")
    rule = instantiate(cfg.dataloader.train.mapper.radiometry)
    register_scenes("four_bands", scene, labels, ["ship"], window=128, overlap=32, radiometry=rule)
    try:
        (record,) = DatasetCatalog.get("four_bands")
    finally:
        for name in ("four_bands", "four_bands_128_32"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    sample = instantiate(cfg.dataloader.train.mapper)(record)
    assert sample["image"].shape == (4, 128, 128) and sample["image"][3, 64, 60] > 240

    model = instantiate(cfg.model).train()
    before = model.backbone.bottom_up.stem.convs[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with EventStorage():
        sum(model([sample]).values()).backward()
    optimizer.step()
    change = (model.backbone.bottom_up.stem.convs[0].weight - before).abs().amax(dim=(0, 2, 3))
    assert (change > 0).all(), "every band is learned from"
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")

    detector = load_detector(tmp_path / "model.pth", tmp_path / "four.py", class_names=["ship"])
    assert detector.detect.model.pixel_mean.shape == (4, 1, 1)
    command = ["--config-file", "four.py", "--weights", "model.pth", "--input", "port.tif"]
    command = [str(tmp_path / word) if "." in word else word for word in command]
    command += ["--output", str(tmp_path / "map.gpkg"), "--window", "128"]
    command += ["--overlap", "32", "--score-threshold", "0", "--classes", "ship"]
    assert predict_scene.main(command) == 0
    assert read_metadata(tmp_path / "map.gpkg")["radiometry"]["bands"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bands", "1", "2", "3"], "takes 4 bands (model.pixel_mean), but 3 are read"),
        (["dataloader.test.mapper.image_format=BGR"], "but there are 4 bands; set it to 'RGB'"),
    ],
)
def test_bands_that_do_not_fit_the_model_are_refused_before_the_search(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    (tmp_path / "four.py").write_text(CONFIG)
    command = ["--config-file", str(tmp_path / "four.py"), "--weights", "absent.pth"]
    command += ["--input", str(scene), "--output", str(tmp_path / "map.gpkg")]
    assert predict_scene.main([*command, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("num_bands", [2, 4, 6])
def test_resizing_treats_every_band_alone(num_bands: int) -> None:
    """Pillow takes a fourth band for opacity, which would darken colours over water."""
    image = np.random.default_rng(0).integers(0, 255, (40, 40, num_bands), dtype=np.uint8)
    image[..., -1] //= 16
    augmented = RotatedAugInput(image)
    T.AugmentationList([T.ResizeShortestEdge(60, 60)])(augmented)
    alone = T.ResizeTransform(40, 40, 60, 60)
    expected = [alone.apply_image(np.ascontiguousarray(image[..., k])) for k in range(num_bands)]
    np.testing.assert_array_equal(augmented.image, np.stack(expected, -1))
