"""Data of pre-training: no labels of an evaluation, shares of labels, pseudo-boxes."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import rsd2.data.datasets  # noqa: F401  registers the known datasets
from rsd2.data.datasets.pseudo import get_pseudo_dicts, register_pseudo_labels
from rsd2.data.formats.pseudo_labels import PseudoLabels, ShardHeader, shard_name, write_shard
from rsd2.projects.object_jepa.pretraining_data import (
    EvaluationSplitError,
    get_pretraining_dicts,
    refuse_evaluation_splits,
)


@pytest.fixture
def register():
    """Function that registers images with a box each, under a name of a split."""
    names = []

    def add(name, files, label="thing"):
        dicts = [
            {
                "file_name": file,
                "image_id": file,
                "height": 8,
                "width": 8,
                "annotations": [{"bbox": [4, 4, 2, 2, 0], "bbox_mode": 4, "category_id": 0}],
            }
            for file in files
        ]
        DatasetCatalog.register(name, lambda: dicts)
        MetadataCatalog.get(name).thing_classes = [label]
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_evaluation_splits_of_all_known_data_sets_are_refused():
    refused, allowed = [], []
    for name in DatasetCatalog.list():
        try:
            refuse_evaluation_splits([name])
            allowed.append(name)
        except EvaluationSplitError as error:
            assert name in str(error)
            refused.append(name)
    for name in (
        "dota_v1.0_val_1024_200",
        "dota_v2.0_test-dev",
        "dota_v1.0_val_800_200_virtual",
        "dior_r_test",
        "ohd_sjtu_l_test_600_150_virtual",
        "aitod_val",
        "tiny_person_test_640x512_100",
        "synthetic_val_upright",
        "coco_2017_val",
    ):
        assert name in refused
    for name in (
        "dota_v1.0_train_1024_200",
        "aitod_trainval",
        "dior_r_trainval",
        "synthetic_train",
    ):
        assert name in allowed


@pytest.mark.parametrize("name", ["ships_TEST", "my.validation.set", "harbour-eval", "x_minival"])
def test_names_are_read_by_their_parts(name):
    with pytest.raises(EvaluationSplitError, match="is for evaluation"):
        refuse_evaluation_splits(["ships_train", name])
    refuse_evaluation_splits(["latest_evaluated", "valley_train", "trainval"])


def test_reading_refuses_before_it_reads():
    with pytest.raises(EvaluationSplitError, match=r"synthetic_val is for evaluation \(val\)"):
        get_pretraining_dicts(["synthetic_train", "synthetic_val"])


def test_sets_of_different_objects_train_together(register):
    register("ships_train", ["a.png"])
    # A detector could not learn from both, because one number would mean two classes.
    register("planes_train", ["b.png"], label="plane")
    records = get_pretraining_dicts(["ships_train", "planes_train"])
    assert [record["file_name"] for record in records] == ["a.png", "b.png"]


def test_an_image_that_is_evaluated_on_is_named(register, tmp_path):
    inside, other = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    register("boats_train", [inside, other])
    register("boats_val", [str(tmp_path / "c.png")])
    assert len(get_pretraining_dicts("boats_train", held_out="boats_val")) == 2
    # the same file by another path
    register("boats_late_val", [f"{tmp_path}/../{tmp_path.name}/b.png"])
    with pytest.raises(EvaluationSplitError, match=r"1 of 2 images .* in boats_late_val .*b\.png"):
        get_pretraining_dicts("boats_train", held_out=["boats_val", "boats_late_val"])


def test_a_share_of_the_images_keeps_its_labels(register):
    register("boats_train", [f"{i}.png" for i in range(40)])
    counts, before = [], set()
    for share in (0.1, 0.5, 1.0):
        records = get_pretraining_dicts("boats_train", labelled_fraction=share)
        assert len(records) == 40
        labelled = {record["image_id"] for record in records if record["annotations"]}
        assert before <= labelled
        before = labelled
        counts.append(len(labelled))
    assert counts == [4, 20, 40]
    assert all(record["annotations"] for record in DatasetCatalog.get("boats_train"))
    few = get_pretraining_dicts("boats_train", fraction=0.25, labelled_fraction=0.2)
    assert len(few) == 10 and sum(bool(record["annotations"]) for record in few) == 2


@pytest.fixture
def pseudo_folder(tmp_path):
    boxes = np.array([[10, 20, 8, 4, 30]], dtype=np.float32)
    record = PseudoLabels("one.png", 40, 50, boxes, np.array([0.5], np.float32))
    write_shard(tmp_path / shard_name(0, 1), [record], ShardHeader("b" * 16, 1))
    return tmp_path


def test_pseudo_boxes_are_no_labels(pseudo_folder, tmp_path):
    (record,) = get_pseudo_dicts(pseudo_folder, "images", classes="one")
    assert record["annotations"][0]["bbox"] == [10, 20, 8, 4, 30]
    register_pseudo_labels("pseudo_val", pseudo_folder, "images", classes="one")
    try:
        refuse_evaluation_splits(["pseudo_val"])
    finally:
        DatasetCatalog.remove("pseudo_val")
        MetadataCatalog.remove("pseudo_val")
