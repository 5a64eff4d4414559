"""Built-in names are there without files, and registering twice is harmless."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.datasets import (
    DOTA_V1_0_CLASSES,
    load_rscardata,
    register_all,
    register_all_dota,
    register_builtin,
)
from rsd2.data.datasets.builtin import datasets_root
from rsd2.synthetic import RSCARDATA_SPLITS, VideoConfig, write_videos


def test_names_classes_and_sources():
    names = DatasetCatalog.list()
    for name in ("dota_v1.0_train", "dota_v1.5_val_1024_200", "dota_v2.0_test-dev_800_200_virtual"):
        assert name in names
    assert MetadataCatalog.get("dota_v1.0_val").thing_classes == list(DOTA_V1_0_CLASSES)
    tiles = MetadataCatalog.get("dota_v2.0_train_800_200")
    assert tiles.source_dataset == "dota_v2.0_train" and len(tiles.thing_classes) == 18
    for name, classes in {
        "dior_r_trainval": 20,
        "ohd_sjtu_s_test": 2,
        "ohd_sjtu_l_trainval_600_150_virtual": 6,
        "rscardata_train_new": 1,
        "synthetic_video_test": 1,
        "viso_mot_plane": 1,
        "viso_coco_car_train": 1,
        "drone_crowd_test_points": 1,
        "hrsc_train": 1,
        "airport_valid_upright": 1,
        "airport_test_256_96_virtual": 1,
        "sen2ships_test_256_96": 1,
        "kit_ais_test": 1,
    }.items():
        assert len(MetadataCatalog.get(name).thing_classes) == classes
    assert (
        MetadataCatalog.get("ohd_sjtu_s_test_600_150_virtual").source_dataset == "ohd_sjtu_s_test"
    )
    assert MetadataCatalog.get("airport_test_256_96_virtual").source_dataset == "airport_test"
    assert MetadataCatalog.get("sen2ships_test_256_96").source_dataset == "sen2ships_test"
    assert "hrsc_test_256_96_virtual" not in names


def test_videos_have_the_labels_that_their_files_can_have():
    names = {name for name in DatasetCatalog.list() if "_test" in name}
    rscardata = {name for name in names if name.startswith("rscardata_")}
    assert rscardata == {
        f"rscardata_test{suffix}" for suffix in ("", "_new", "_old_voc", "_new_voc")
    }
    drawn = {name for name in names if name.startswith("synthetic_video_")}
    assert drawn == {f"synthetic_video_test{suffix}" for suffix in ("", "_old", "_old_voc")}


def test_absent_files_are_named():
    with pytest.raises(FileNotFoundError, match=r"dota/v1\.0/train/images"):
        DatasetCatalog.get("dota_v1.0_train")
    with pytest.raises(FileNotFoundError, match="rscardata"):
        DatasetCatalog.get("rscardata_train")
    with pytest.raises(FileNotFoundError, match="viso/mot/plane"):
        DatasetCatalog.get("viso_mot_plane")
    with pytest.raises(FileNotFoundError, match="drone_crowd/test_data/images"):
        DatasetCatalog.get("drone_crowd_test")
    with pytest.raises(FileNotFoundError, match=r"dota/v1\.0/tiles/train_800_200"):
        DatasetCatalog.get("dota_v1.0_train_800_200")


def test_all_data_sets_can_be_moved_and_a_start_leaves_them_there(tmp_path):
    original = MetadataCatalog.get("dota_v1.0_train").builtin_root
    names = set(DatasetCatalog.list())
    try:
        for _ in range(2):
            register_all(tmp_path)
            register_builtin()
            assert set(DatasetCatalog.list()) == names
            for name in ("dota_v1.0_train", "dota_v1.0_train_800_200_virtual"):
                expected = f"{tmp_path}/dota/v1.0/train/images"
                assert MetadataCatalog.get(name).images_dir == expected
            assert MetadataCatalog.get("dior_r_test").images_dir.startswith(f"{tmp_path}/dior_r/")
            video = MetadataCatalog.get("rscardata_test_new").video_root
            assert video == f"{tmp_path}/rscardata"
            ohd = MetadataCatalog.get("ohd_sjtu_l_test_600_150_virtual").images_dir
            assert ohd == f"{tmp_path}/ohd_sjtu/L/test/images"
    finally:
        register_all(original)
    assert MetadataCatalog.get("dota_v1.0_train").images_dir.startswith(original)


@pytest.mark.parametrize(
    ("imports", "registered"),
    [
        ("import rsd2.data.datasets", True),
        (
            "import rsd2.data.mappers.box_mapper, rsd2.data.mappers.clip_mapper, rsd2.evaluation, "
            "rsd2.data.mappers.classification_mapper, rsd2.data.mappers.dataset_mapper",
            False,
        ),
    ],
)
def test_only_the_package_of_data_sets_registers_on_import(imports, registered, tmp_path):
    code = f"""{imports}
from detectron2.data import DatasetCatalog, MetadataCatalog
if "dota_v1.0_train" in DatasetCatalog.list():
    print(MetadataCatalog.get("dota_v1.0_train").images_dir)
"""
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == (f"{tmp_path}/dota/v1.0/train/images" if registered else "")


def test_a_users_own_set_of_the_same_name_is_left_alone(tmp_path):
    name = "dota_v1.0_train"
    original = DatasetCatalog.pop(name)
    metadata = MetadataCatalog.pop(name)
    try:
        DatasetCatalog.register(name, list)
        register_all_dota(metadata.builtin_root)
        assert DatasetCatalog.get(name) == []
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name, None)
        DatasetCatalog.register(name, original)
        MetadataCatalog[name] = metadata


REAL = {  # name -> images and objects that the page of real data states
    "hrsc_train": (430, 841),
    "hrsc_test": (356, 1136),
    "airport_train": (236, 3408),
    "airport_valid_upright": (68, 1018),
    "airport_test": (34, 497),
    "kit_ais_train": (40, 1255),
    "kit_ais_test": (25, 1338),
    "sen2ships_train": (8, 202),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_the_objects_that_their_page_states(name, repository):
    root = Path(os.environ.get("RSD2_REAL_DATA") or repository.parent / "shared" / "data" / "real")
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; name their folder in RSD2_REAL_DATA")
    register_all(root)
    try:
        records = DatasetCatalog.get(name)
    finally:
        register_all(datasets_root())
    assert (len(records), sum(len(record["annotations"]) for record in records)) == REAL[name]


def test_clips_of_a_coco_file_of_another_name(tmp_path):
    write_videos(
        tmp_path, "train", 1, VideoConfig(size=(64, 80), num_frames=3), seed=0, progress=False
    )
    source = tmp_path / RSCARDATA_SPLITS["train"].new
    source.rename(tmp_path / "annotations_train.json")
    records = load_rscardata(tmp_path, "train", coco_file="annotations_train.json")
    assert [record["video_id"] for record in records] == ["001"] * 3
