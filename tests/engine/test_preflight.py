"""What is known before the first step is judged before it: classes, labels, evaluation, folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from rsd2.commands import train
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances
from rsd2.engine import RunError, build_loader, check_classes, check_run
from rsd2.testing import TINY_CLASSES, shrink, write_tiny_dota

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"
EXPERIMENTS = [
    *ROOT.glob("configs/*.py"),
    *ROOT.glob("projects/*/configs/*.py"),
]


@pytest.fixture
def register(tmp_path):
    """Register datasets of images of planes and ships; they are forgotten after the test."""
    names = []

    def add(name, classes=TINY_CLASSES, labels="labelTxt", images="images"):
        folder = tmp_path / "data"
        if not folder.exists():
            write_tiny_dota(folder)
        data = (folder / labels, folder / images)
        register_dota_instances(name, {"thing_classes": list(classes)}, *data)
        names.append(name)

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Train, or evaluate, and return why the run did not start."""
    monkeypatch.chdir(tmp_path)
    cfg = shrink(load_config(CONFIG))
    cfg.train.output_dir = "run"
    save_config(cfg, tmp_path / "small.yaml")
    cfg.model.num_classes = 2
    torch.save({"model": instantiate(cfg.model).state_dict()}, tmp_path / "weights.pth")

    def start(train_name, test_name, *opts, evaluates=False):
        flags = ["--eval-only", "train.init_checkpoint=weights.pth"] if evaluates else []
        names = [f"dataloader.train.dataset.names={train_name}"] if train_name else []
        names += [f"dataloader.test.dataset.names={test_name}"] if test_name else []
        arguments = ["--config-file", "small.yaml", *flags, *names, *opts]
        assert train.main(arguments) == 1
        assert not list(Path("run").glob("model_*")) and not Path("run/metrics.json").exists()
        return capsys.readouterr().err.strip().splitlines()[-1].partition("error: ")[2]

    return start


@pytest.mark.parametrize("evaluates", [False, True])
def test_number_of_classes_is_that_of_the_data(register, refusal, evaluates):
    register("of_two")
    loader = "dataloader.test" if evaluates else "dataloader.train"
    assert refusal("of_two", "of_two", evaluates=evaluates) == (
        f"model.num_classes=7, but dataset of_two of {loader} has 2 classes (plane, ship); set "
        f"model.num_classes=2, or name another dataset with {loader}.dataset.names=..."
    )


def test_test_data_of_other_classes_are_refused_before_the_training(register, refusal):
    register("of_two")
    register("of_one", ("ship",))
    reason = refusal("of_two", "of_one", "model.num_classes=2")
    assert reason.startswith("model.num_classes=2, but dataset of_one of dataloader.test has 1 ")
    register("of_two_swapped", TINY_CLASSES[::-1])
    reason = refusal("of_two", "of_two_swapped", "model.num_classes=2")
    assert "in another order (ship, plane instead of plane, ship)" in reason


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_that_no_label_has_are_refused_with_their_names(register, refusal, split):
    register("of_two")
    register("misspelt", ("Plane", "Ship"))
    names = ("misspelt", "of_two") if split == "train" else ("of_two", "misspelt")
    assert refusal(*names, "model.num_classes=2") == (
        f"dataloader.{split}: none of the 4 labelled images of misspelt shows an object of its "
        "classes (Plane, Ship). If the log above has unknown classes, compare their spelling with "
        "that of the label files; else the labels hold no object: add images that show some"
    )


def test_test_data_are_looked_for_before_the_training(register, refusal):
    register("of_two")
    reason = refusal("of_two", "of_nobody", "model.num_classes=2")
    assert reason.startswith("dataloader.test: ") and "'of_nobody' is not registered" in reason
    register("without_images", images="nowhere")
    reason = refusal("of_two", "without_images", "model.num_classes=2")
    assert reason.startswith("dataloader.test: ") and "no image folder" in reason


def test_images_that_are_not_there_are_missed_before_the_training(register, refusal, tmp_path):
    register("of_two")
    records = [dict(record) for record in DatasetCatalog.get("of_two")]
    records[1]["file_name"] = str(tmp_path / "lost.png")
    DatasetCatalog.register("of_two_without_one", lambda: records)
    MetadataCatalog.get("of_two_without_one").set(thing_classes=list(TINY_CLASSES))
    try:
        reason = refusal("of_two", "of_two_without_one", "model.num_classes=2")
    finally:
        DatasetCatalog.remove("of_two_without_one")
    assert reason.startswith("dataloader.test: 1 of 4 checked images are not there")
    assert str(tmp_path / "lost.png") in reason


@pytest.mark.parametrize("split", ["train", "test"])
def test_empty_folders_are_one_sentence(register, refusal, tmp_path, split):
    register("of_two")
    (tmp_path / "data" / "empty").mkdir()
    register("of_none", images="empty")
    names = ("of_none", "of_two") if split == "train" else ("of_two", "of_none")
    assert refusal(*names, "model.num_classes=2").startswith(f"dataloader.{split}: ")


def test_impossible_protocols_and_folders_are_refused_before_the_training(
    register, refusal, tmp_path
):
    register("of_two")
    names = ("of_two", "of_two", "model.num_classes=2")
    reason = refusal(*names, "dataloader.evaluator.ap_method=voc2030")
    assert reason.startswith("dataloader.evaluator: ") and "voc2030" in reason
    (tmp_path / "file").write_text("in the way")
    reason = refusal(*names, f"dataloader.evaluator.output_dir={tmp_path / 'file' / 'results'}")
    assert reason.startswith("dataloader.evaluator: ") and "file" in reason
    assert "cannot be written to" in refusal(*names, "train.output_dir=file/run")


def test_a_label_of_a_class_that_the_model_lacks_is_named():
    whole = OmegaConf.create({"model": {"detector": {"num_classes": 3}}})
    records = [{"file_name": "a.png", "annotations": [{"category_id": 2}]}]
    node = {"_target_": "builtins.dict", "dataset": {"_target_": "copy.copy", "x": records}}
    assert len(build_loader(node, "dataloader.train", whole)["dataset"]) == 1
    records[0]["annotations"].append({"category_id": 3})
    with pytest.raises(RunError, match=r"image a\.png has an object of class 3, counted from 0"):
        build_loader(node, "dataloader.train", whole)


def test_an_evaluator_of_other_images_is_refused(register, refusal, tmp_path):
    register("of_two")
    write_tiny_dota(tmp_path / "data" / "others")
    for path in sorted((tmp_path / "data" / "others").glob("*/*")):
        path.rename(path.with_name(f"Q{path.name}"))
    register("of_others", labels="others/labelTxt", images="others/images")
    options = ("model.num_classes=2", "dataloader.evaluator.dataset_name=of_others")
    assert refusal("of_two", "of_two", *options) == (
        "dataloader.evaluator.dataset_name=of_others has none of the images of "
        "dataloader.test.dataset.names=of_two; name one dataset in both"
    )


def test_looking_ahead_draws_no_random_number(register):
    register("of_two")
    cfg = shrink(load_config(CONFIG, ["model.num_classes=2"]))
    cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names = "of_two"
    cfg.dataloader.evaluator.output_dir = None
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_run(cfg, is_training=True)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.stem for path in EXPERIMENTS])
def test_every_experiment_has_the_classes_of_its_data(path):
    check_classes(load_config(path))
