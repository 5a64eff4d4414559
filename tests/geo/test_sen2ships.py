"""Real ports with their labels, as label tools write them; skipped where the files are absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from rsd2.data.datasets import load_scenes, register_all_scenes
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.geo import Radiometry
from rsd2.geo.scene_files import SceneFiles

RULE = Radiometry(scaling="percentile", percentiles=(1.0, 99.5))


@pytest.fixture
def built_in(sen2ships: Path):
    """The built-in names, moved to the real files and back."""
    register_all_scenes(sen2ships.parent)
    yield
    register_all_scenes("datasets")


def test_every_ship_is_read_and_shown_in_a_window(built_in):
    for split, ports, ships in (("train", 8, 202), ("test", 3, 85)):
        scenes = DatasetCatalog.get(f"sen2ships_{split}")
        boxes = np.array([a["bbox"] for scene in scenes for a in scene["annotations"]])
        assert (len(scenes), len(boxes)) == (ports, ships)
        if split == "train":
            # About 20 x 7 pixels, three times enlarged; the other ports have smaller ones.
            assert np.allclose(np.median(boxes[:, 2:4], axis=0), [60, 21], rtol=0.25)

    windows = DatasetCatalog.get("sen2ships_test_384_128")
    whole = sum(a["difficult"] == 0 for window in windows for a in window["annotations"])
    assert whole >= 85


def test_ports_are_neither_black_nor_white(built_in):
    mapper = RotatedDatasetMapper(is_train=False, augmentations=[])
    for scene in DatasetCatalog.get("sen2ships_test"):
        window = {**scene, "height": 300, "width": 300}
        window["tile"] = {"x": 600, "y": 300, "width": 300, "height": 300, "virtual": True}
        image = mapper(window)["image"].float()
        assert 10 < image.mean() < 200 and image.std() > 5


def test_bands_in_files_of_their_own_with_labels_as_the_tool_wrote_them(
    sen2ships: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Two image entries of which one has objects, all crowds, ids that start elsewhere."""
    labels = json.loads((sen2ships / "test" / "busan.json").read_text())
    (image,) = labels["images"]
    labels["images"] = [
        {**image, "id": 5, "file_name": "busan.tif"},
        {**image, "id": 9, "file_name": "busan_rgb.png"},
    ]
    for number, annotation in enumerate(labels["annotations"], start=731):
        annotation.update(id=number, image_id=9, iscrowd=1)
    path = tmp_path / "busan_cvat_coco.json"
    path.write_text(json.dumps(labels))

    bands = tuple(str(sen2ships / "bands" / f"busan_{band}.tif") for band in ("B04", "B03", "B02"))
    (record,) = load_scenes([SceneFiles("busan", bands)], [path], ["ship"], radiometry=RULE)
    assert len(record["annotations"]) == 54
    assert all(a["difficult"] == a["iscrowd"] == 0 for a in record["annotations"])
    assert "marks all 54 objects as crowds" in caplog.text

    # The bands in three files give the pixels of the one file that holds all three.
    together = SceneFiles("busan", (str(sen2ships / "test" / "busan.tif"),))
    (whole,) = load_scenes([together], [None], ["ship"], radiometry=RULE)
    mapper = RotatedDatasetMapper(is_train=False, augmentations=[])
    assert np.array_equal(mapper(record)["image"], mapper(whole)["image"])
