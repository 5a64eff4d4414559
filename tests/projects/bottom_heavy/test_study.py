"""The study of bottom-heavy backbones: arms that differ in a part alone, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from rsd2.config import load_config, save_config
from rsd2.projects.bottom_heavy.measure_cost import main, measure, peak_of_tensors
from rsd2.projects.bottom_heavy.study import (
    ARMS,
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
    assert [job.name for job in jobs[:9]] == [*(f"{arm}_seed3" for arm in ARMS), "r18_fpn_seed4"]
    for job in jobs:
        assert {"train.eval_period=4", "train.log_period=4"} <= set(job.command)
    first = [f"{tmp_path}/runs/{arm}_seed3" for arm in ARMS]
    costs = cost_jobs(settings, tmp_path)
    assert [run for job, run in zip(costs, first) if run in job.command] == first
    with pytest.raises(ValueError, match="size is a height and a width"):
        BottomHeavySettings(size=(64,))


def test_arms_differ_in_backbone_and_neck_alone(repository: Path) -> None:
    """Same data, schedule and heads; the same stages are frozen, and the norms train alike."""
    folder = repository / "projects" / "BottomHeavy" / "configs"
    configs = {
        name: load_config(
            folder / arm.config, [*arm.overrides, "model.backbone.bottom_up.width=32"]
        )
        for name, arm in ARMS.items()
    }
    first = configs["r18_fpn"]
    for config in configs.values():
        for key in ("dataloader", "optimizer", "lr_multiplier", "train"):
            assert OmegaConf.to_yaml(config[key]) == OmegaConf.to_yaml(first[key])
        for key in ("proposal_generator", "roi_heads"):
            assert OmegaConf.to_yaml(config.model[key]) == OmegaConf.to_yaml(first.model[key])
        for key in ("freeze_at", "norm", "norm_eval", "width"):
            assert config.model.backbone.bottom_up[key] == first.model.backbone.bottom_up[key]


def test_one_arm_sees_larger_images(tmp_path: Path) -> None:
    settings = BottomHeavySettings(seeds=(0,), arms=("r18_fpn", "r18_larger_fpn"), size=(64, 80))
    plain, larger = study_jobs(settings, tmp_path)[2:]
    for split in ("train", "test"):
        key = f"dataloader.{split}.mapper.augmentations.0"
        assert {f"{key}.short_edge_length=64", f"{key}.max_size=80"} <= set(plain.command)
        assert {f"{key}.short_edge_length=80", f"{key}.max_size=100"} <= set(larger.command)
    assert cost_jobs(settings, tmp_path)[1].command[-2:] == ("80", "100")


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
    slow = {"arm": "bh18_fpn", "AP50_tiny": 70.0, "cost": {**COST, "latency_ms": 120.0}}
    table, _, line = REPORT.appendix([{"arm": "r18_fpn", "AP50_tiny": 60.0, **row}, slow])
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]] == [
        "bh18_fpn", "70.0", "1.50", "1.00"
    ]  # fmt: skip
    assert "320 x 256 px on cpu, 1 thread of a processor" in line


def test_costs_of_a_trained_detector(tmp_path: Path, repository: Path) -> None:
    name = ARMS["bh18_fpn"].config
    config = load_config(repository / "projects" / "BottomHeavy" / "configs" / name)
    save_config(config, tmp_path / "config.yaml")
    model = instantiate(config.model)
    state = model.state_dict()
    torch.save({"model": state, "ema": {"model": state}}, tmp_path / "model_final.pth")
    threads = torch.get_num_threads()
    try:
        cost = measure(tmp_path, (64, 96))
        larger = measure(tmp_path, (128, 96))
        padded = measure(tmp_path, (40, 70))
    finally:
        torch.set_num_threads(threads)
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert 0 < cost["backbone_parameters"] < cost["parameters"]
    assert 0 < cost["backbone_gmacs"] < cost["pyramid_gmacs"]
    assert larger["pyramid_gmacs"] == pytest.approx(2 * cost["pyramid_gmacs"], rel=0.01)
    assert padded["backbone_gmacs"] == cost["backbone_gmacs"], "40 x 70 becomes 64 x 96"
    assert cost["latency_ms"] > 0
    assert 0 < cost["peak_mb"] < larger["peak_mb"]
    assert set(cost) == set(COST)
    command = ["--run", str(tmp_path / "nowhere"), "--output", str(tmp_path / "cost.json")]
    assert main(command) == 2


def test_the_peak_counts_tensors_that_live_together_whatever_was_freed_before() -> None:
    found = torch.ones(3_000_000)  # 12 MB that are no part of the work

    def work() -> torch.Tensor:
        for _ in range(3):
            found + 1  # released before the next one is made
        return torch.ones(1_000_000) + torch.ones(1)  # 8 MB together

    assert peak_of_tensors(work) == peak_of_tensors(work) == pytest.approx(12.0, abs=0.1)
    assert peak_of_tensors(lambda: None) == 0
