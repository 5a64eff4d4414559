"""What an earlier commit saved: its config loads by the old names and finds what it found."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import load_config
from rsd2.config.renames import MOVED_MODULES, use_current_names
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


def test_every_moved_module_is_where_the_table_says(load_module):
    import importlib

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
