"""What an earlier commit saved: its config loads by the old names and finds what it found."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.registry import locate

from rsd2.config import ConfigError, load_config
from rsd2.config.renames import (
    GATHERED_OPTIONS,
    MOVED_MODULES,
    gather_options,
    use_current_names,
)
from rsd2.modeling import DetectorQuirks
from rsd2.weights.checkpoint import load_weights

FOLDER = "tests/config/old_run"


def test_a_run_of_an_earlier_commit_evaluates_to_the_same_numbers(
    repository, load_module, tmp_path
):
    text = (repository / FOLDER / "config.yaml").read_text()
    assert "rsd2.data.dataset_mapper." in text, "the file names modules by their earlier places"
    old_run = load_module(f"{FOLDER}/make.py")
    cfg = load_config(repository / FOLDER / "config.yaml")
    model = instantiate(cfg.model).eval()
    state = old_run.weights_by_name(model)
    checkpoint = {"model": state, "ema": {"model": state, "updates": 1}, "iteration": 9}
    torch.save(checkpoint, tmp_path / "model_final.pth")
    load_weights(model, tmp_path / "model_final.pth", ema=True)
    found = old_run.evaluate(cfg, model, tmp_path, "old_run_of_the_test")
    expected = json.loads((repository / FOLDER / "expected.json").read_text())
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    assert sum(count for count, _, _ in expected["found"]) > 0
    for now, then in zip(found["found"], expected["found"], strict=True):
        assert now == pytest.approx(then, rel=1e-4)


def test_every_name_that_experiments_saved_is_found(repository):
    names = (repository / FOLDER / "names.txt").read_text().split()
    assert len(names) > 50
    moved = [name for name in names if use_current_names(f"{name}\n") != f"{name}\n"]
    assert {"rsd2.modeling.SSPNet", "rsd2.inheritance.Inheritance"} <= set(moved)
    for name in names:
        # hydra's look-up fails if a part of the name is missing
        assert locate(use_current_names(name)) is not None, name


def test_a_saved_config_of_another_encoding_is_an_error(tmp_path):
    (tmp_path / "config.yaml").write_bytes("train: {output_dir: \u00e9}".encode("latin-1"))
    with pytest.raises(ConfigError, match="config.yaml is not readable YAML"):
        load_config(tmp_path / "config.yaml")


def test_every_moved_module_is_where_the_table_says():
    for old, new in MOVED_MODULES.items():
        importlib.import_module(new)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(old)


def test_names_are_replaced_whole():
    text = "_target_: rsd2.data.tiling.f\n- !!python/name:rsd2.modeling.vit.VisionTransformer ''\n"
    assert use_current_names(text) == (
        "_target_: rsd2.data.windows.tiling.f\n"
        "- !!python/name:rsd2.modeling.backbones.vit.VisionTransformer ''\n"
    )
    unchanged = "_target_: rsd2.data.tiling_of_mine.f\nx: my.rsd2.data.tiling.f\n"
    assert use_current_names(unchanged) == unchanged


def test_options_of_an_earlier_commit_are_quirks_of_today():
    kept = {"_target_": "any.Detector", "num_classes": 3}
    saved = {**kept, "official_denoising": True, "box_normalization": "long_side"}
    found = gather_options({"model": [saved], "official_denoising": True})
    quirks = found["model"][0].pop("quirks")
    assert found == {"model": [kept], "official_denoising": True}, "arguments of targets alone"
    expected = DetectorQuirks(multiplied_angle_noise=True, trained_empty_slots=True)
    assert instantiate(quirks) == expected

    for option, (_, fields) in GATHERED_OPTIONS.items():
        value = "official_per_axis" if option == "box_normalization" else True
        quirks = instantiate(gather_options({"_target_": "any", option: value})["quirks"])
        assert all(getattr(quirks, field) for field in fields), option
