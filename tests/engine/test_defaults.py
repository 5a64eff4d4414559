"""Pieces of a run: output folder, evaluation of raw and averaged weights, results."""

import json
import os

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from rsd2.engine import (
    RunError,
    check_evaluators,
    evaluate,
    prepare_output_dir,
    provenance,
    resolve_seed,
    write_results,
)


def _config(tmp_path):
    import toy
    from detectron2.config import LazyCall as L
    from detectron2.data import build_detection_test_loader

    cfg = OmegaConf.create({"train": {"output_dir": str(tmp_path)}}, flags={"allow_objects": True})
    cfg.dataloader = {
        "test": L(build_detection_test_loader)(
            dataset=toy.toy_dicts(3), mapper=L(toy.ToyMapper)(augment=False)
        ),
        "evaluator": L(toy.ToyEvaluator)(output_dir="${train.output_dir}/inference"),
    }
    return cfg


def test_average_is_reported_beside_the_raw_weights(tmp_path):
    import toy

    cfg = _config(tmp_path)
    raw, averaged = toy.ToyDetector(), toy.ToyDetector()
    with torch.no_grad():
        averaged.head.bias.add_(5.0)
    state = torch.get_rng_state()
    both = evaluate(cfg, raw, averaged)
    assert torch.equal(state, torch.get_rng_state())  # although the evaluator draws numbers
    assert list(both) == ["bbox", "ema/bbox"]
    assert both["bbox"]["AP"] == pytest.approx(evaluate(cfg, raw)["bbox"]["AP"])
    assert both["ema/bbox"]["AP"] == evaluate(cfg, averaged)["bbox"]["AP"] != both["bbox"]
    # Neither overwrites the other's files.
    written = json.loads((tmp_path / "inference" / "ema" / "toy.json").read_text())
    assert written["bbox"]["AP"] == both["ema/bbox"]["AP"]
    assert raw.training
    # A list of evaluators works, and none gives no metrics.
    cfg.dataloader.evaluator = [cfg.dataloader.evaluator]
    assert list(evaluate(cfg, raw, averaged)) == ["bbox", "ema/bbox"]
    cfg.dataloader.evaluator = None
    assert evaluate(cfg, raw) == {}


def test_weights_and_detections_that_are_not_finite_end_the_run_in_a_sentence(
    tmp_path, monkeypatch
):
    import toy

    cfg = _config(tmp_path)
    good, broken = toy.ToyDetector(), toy.ToyDetector()
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(RunError, match=r"1 of .* first is head\.bias: are these the right weights"):
        evaluate(cfg, broken)
    with pytest.raises(RunError, match=r"first is ema/head\.bias"):
        evaluate(cfg, good, broken)

    def refuse(self):
        raise FloatingPointError("all 3 detections are NaN")

    monkeypatch.setattr(toy.ToyEvaluator, "evaluate", refuse)
    with pytest.raises(RunError, match="all 3 detections"):
        evaluate(cfg, good)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    from detectron2.config import LazyCall as L

    from rsd2.evaluation import DotaEvaluator

    cfg = _config(tmp_path)
    check_evaluators(cfg)
    (tmp_path / "file").write_text("")
    cfg.dataloader.evaluator = L(DotaEvaluator)(
        dataset_name="any", output_dir=str(tmp_path / "file" / "inference")
    )
    with pytest.raises(RunError, match=r"dataloader\.evaluator: cannot write evaluation results"):
        check_evaluators(cfg)
    cfg.dataloader.evaluator = None
    check_evaluators(cfg)


def test_results_are_strict_json_with_provenance(tmp_path):
    path = tmp_path / "results.json"
    origin = provenance("c.py", 3, torch.device("cpu"))
    write_results(path, {"bbox": {"AP": np.float32(1.5), "AP50": float("nan")}}, origin)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["results"] == {"bbox": {"AP": 1.5, "AP50": None}}
    assert data["seed"] == 3 and data["config"] == "c.py"
    assert {"command", "commit", "hardware", "versions", "time"} <= data.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_output_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    folder = prepare_output_dir(str(tmp_path / "a" / "b"))
    assert folder.is_dir() and list(folder.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"train\.output_dir"):
        prepare_output_dir(str(tmp_path / "file" / "b"))
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(RunError, match="Permission denied"):
            prepare_output_dir(str(tmp_path / "closed"))


def test_seed_is_kept_or_drawn():
    assert resolve_seed(5) == 5 and resolve_seed(0) == 0
    assert resolve_seed(-1) >= 0 and resolve_seed(None) >= 0
