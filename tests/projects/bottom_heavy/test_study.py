"""The study of bottom-heavy backbones: arms that differ in a part alone, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from rsd2.config import load_config, save_config
from rsd2.projects.bottom_heavy.measure_cost import main, measure
from rsd2.projects.bottom_heavy.study import (
    CONFIGS,
    REPORT,
    BottomHeavySettings,
    cost_jobs,
    study_jobs,
)
from rsd2.study import StudyReportError, StudyRun

COST = {
    "parameters": 3_000_000, "backbone_parameters": 2_000_000, "backbone_gmacs": 1.5,
    "pyramid_gmacs": 2.0, "latency_ms": 80.0, "peak_mb": None, "height": 256, "width": 320,
    "device": "cpu", "threads": 1, "machine": "a processor",
}  # fmt: skip


def test_trainings_are_evaluated_in_steps_that_the_log_has(tmp_path: Path) -> None:
    settings = BottomHeavySettings(seeds=(3, 4), steps=40)
    jobs = study_jobs(settings, tmp_path)[2:]
    assert [job.name for job in jobs[:5]] == [*(f"{arm}_seed3" for arm in CONFIGS), "r18_fpn_seed4"]
    for job in jobs:
        assert {"train.eval_period=2", "train.log_period=2"} <= set(job.command)
    first = [f"{tmp_path}/runs/{arm}_seed3" for arm in CONFIGS]
    costs = cost_jobs(settings, tmp_path)
    assert [run for job, run in zip(costs, first) if run in job.command] == first
    with pytest.raises(ValueError, match="size is a height and a width"):
        BottomHeavySettings(size=(64,))


def test_arms_differ_in_backbone_and_neck_alone(repository: Path) -> None:
    """Same data, schedule and heads; the same stages are frozen, and the norms train alike."""
    folder = repository / "projects" / "BottomHeavy" / "configs"
    configs = {arm: load_config(folder / name) for arm, name in CONFIGS.items()}
    first = configs["r18_fpn"]
    for config in configs.values():
        for key in ("dataloader", "optimizer", "lr_multiplier", "train"):
            assert OmegaConf.to_yaml(config[key]) == OmegaConf.to_yaml(first[key])
        for key in ("proposal_generator", "roi_heads"):
            assert OmegaConf.to_yaml(config.model[key]) == OmegaConf.to_yaml(first.model[key])
        for key in ("freeze_at", "norm", "norm_eval", "width"):
            assert config.model.backbone.bottom_up[key] == first.model.backbone.bottom_up[key]


def test_the_report_has_the_costs_of_an_arm(tmp_path: Path) -> None:
    run = StudyRun("r18_fpn", "runs/r18_fpn_seed3", "r18_fpn_seed3")
    with pytest.raises(StudyReportError, match=r"cost_r18_fpn\.json cannot be read"):
        REPORT.details(tmp_path, run)
    (tmp_path / "cost_r18_fpn.json").write_text(json.dumps(COST))
    row = REPORT.details(tmp_path, run)
    cells = {title: cell(row) for title, cell in REPORT.columns.items()}
    assert cells == {
        "M parameters": "2.00 / 3.00", "GMAC": "1.50 / 2.00", "ms": "80", "peak MB": "-"
    }  # fmt: skip
    (line,) = REPORT.appendix([row])
    assert "320 x 256 px on cpu, 1 thread of a processor" in line


def test_costs_of_a_trained_detector(tmp_path: Path, repository: Path) -> None:
    name = CONFIGS["bh18_fpn"]
    config = load_config(repository / "projects" / "BottomHeavy" / "configs" / name)
    save_config(config, tmp_path / "config.yaml")
    model = instantiate(config.model)
    state = model.state_dict()
    torch.save({"model": state, "ema": {"model": state}}, tmp_path / "model_final.pth")
    threads = torch.get_num_threads()
    try:
        cost = measure(tmp_path, (64, 96))
        larger = measure(tmp_path, (128, 96))
    finally:
        torch.set_num_threads(threads)
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert 0 < cost["backbone_parameters"] < cost["parameters"]
    assert 0 < cost["backbone_gmacs"] < cost["pyramid_gmacs"]
    assert larger["pyramid_gmacs"] == pytest.approx(2 * cost["pyramid_gmacs"], rel=0.01)
    assert cost["latency_ms"] > 0
    assert set(cost) == set(COST)
    command = ["--run", str(tmp_path / "nowhere"), "--output", str(tmp_path / "cost.json")]
    assert main(command) == 2
