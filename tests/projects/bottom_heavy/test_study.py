"""The study of bottom-heavy backbones: equal budgets, resuming, and an honest verdict."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from rsd2.config import load_config, save_config

TOOLS = Path("projects") / "BottomHeavy" / "tools"


@pytest.fixture
def tools(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(repository / TOOLS))
    names = ("study_report", "run_study")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: importlib.import_module(name) for name in names}


COST = {
    "parameters": 3_000_000, "backbone_parameters": 2_000_000, "backbone_gmacs": 1.5,
    "pyramid_gmacs": 2.0, "latency_ms": 80.0, "peak_mb": None, "height": 256, "width": 320,
    "device": "cpu", "threads": 1, "machine": "a processor",
}  # fmt: skip


def make_run(folder: Path, ap: float | None, curve: list[float], iteration: int = 100) -> Path:
    """An output folder as a training leaves it, with a course evaluated every 5 steps."""
    folder.mkdir(parents=True)
    names = ("tiny1", "tiny2", "tiny3")
    scores = {"AP50_tiny": ap, "AP25_tiny": 50.0, "AP75_tiny": 5.0}
    scores |= {f"AP50_{name}": 10.0 for name in names}
    results = {
        "results": {"bbox": dict.fromkeys(scores, 1.0), "ema/bbox": scores},
        "seed": 0, "commit": "abc", "iteration": iteration, "max_iter": 100, "config": "c.py",
        "hardware": {"cpu_cores": 2}, "versions": {"torch": "2"},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    lines = [{"iteration": 5 * k + 4, "ema/bbox/AP50_tiny": v} for k, v in enumerate(curve)]
    text = "".join(json.dumps(line) + "\n" for line in [{"iteration": 3, "lr": 0.1}, *lines])
    (folder / "metrics.json").write_text(text)
    (folder.parent / "cost.json").write_text(json.dumps(COST))
    return folder


def test_all_arms_get_the_same_budget(
    tools: dict[str, ModuleType], tmp_path: Path, repository: Path
) -> None:
    study = tools["run_study"]
    parser = study.get_parser()
    args = parser.parse_args(["--output", str(tmp_path), "--seeds", "3", "4", "--steps", "40"])
    jobs = study.training_jobs(args, tmp_path)
    assert len(jobs) == 2 * len(study.ARMS)
    own = ("--config-file", "train.output_dir=", "train.seed=")
    shared = {
        tuple(w for w in job.command if not (w.startswith(own) or w.endswith(".py")))
        for job in jobs
    }
    assert len(shared) == 1
    assert {"train.eval_period=2", "train.log_period=2"} <= set(shared.pop())
    for name in study.ARMS.values():
        assert (repository / "projects" / "BottomHeavy" / "configs" / name).is_file()


def test_arms_differ_in_backbone_and_neck_alone(
    tools: dict[str, ModuleType], repository: Path
) -> None:
    """Same data, schedule and heads; the same stages are frozen, and the norms train alike."""
    folder = repository / "projects" / "BottomHeavy" / "configs"
    configs = {arm: load_config(folder / name) for arm, name in tools["run_study"].ARMS.items()}
    first = configs["r18_fpn"]
    for config in configs.values():
        for key in ("dataloader", "optimizer", "lr_multiplier", "train"):
            assert OmegaConf.to_yaml(config[key]) == OmegaConf.to_yaml(first[key])
        for key in ("proposal_generator", "roi_heads"):
            assert OmegaConf.to_yaml(config.model[key]) == OmegaConf.to_yaml(first.model[key])
        for key in ("freeze_at", "norm", "norm_eval", "width"):
            assert config.model.backbone.bottom_up[key] == first.model.backbone.bottom_up[key]


def test_jobs_name_what_they_need_and_make(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    study = tools["run_study"]
    args = study.get_parser().parse_args(["--output", str(tmp_path), "--seeds", "3"])
    scenes, trainings = study.scene_jobs(args, tmp_path), study.training_jobs(args, tmp_path)
    for job in trainings:
        assert set(job.needs) == {scene.name for scene in scenes}
        (output,) = [w for w in job.command if w.startswith("train.output_dir=")]
        assert [output.split("=")[1] + "/results.json"] == [str(tmp_path / n) for n in job.makes]
    for job in (*scenes, *study.cost_jobs(args, tmp_path)):
        (made,) = job.makes
        target = tmp_path / made
        assert str(target) in job.command or str(target.parent) in job.command


def test_a_failed_command_names_its_log_and_nothing_is_measured(
    tools: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = tools["run_study"]

    def python(name: str, code: str) -> list:
        return [study.Job(name, (sys.executable, "-c", code))]

    measured = tmp_path / "measured"
    monkeypatch.setattr(study, "scene_jobs", lambda args, folder: [])
    monkeypatch.setattr(
        study, "training_jobs", lambda args, folder: python("bad", "print('why'); exit(3)")
    )
    monkeypatch.setattr(
        study, "cost_jobs", lambda args, folder: python("cost", f"open({str(measured)!r}, 'w')")
    )
    assert study.main(["--output", str(tmp_path / "study")]) == 1
    log = tmp_path / "study" / "jobs" / "bad.log"
    assert str(log) in capsys.readouterr().err
    assert log.read_text().endswith("why\n")
    assert not measured.exists()


def test_rows_and_report(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    report = tools["study_report"]
    flat = [1.0 + k for k in range(15)] + [30.0] * 5
    run = make_run(tmp_path / "run", 30.0, flat)
    row = report.make_row("r18_fpn", run, tmp_path / "cost.json")
    assert row["weights"] == "averaged"
    assert row["metrics"]["AP50_tiny"] == 30
    assert row["curve"][-1] == (100, 30.0)
    text = report.write_report([row], tmp_path, "r18_fpn")
    assert "the comparison counts" in text
    assert "| r18_fpn    | 0      | 30.00" in text
    assert (tmp_path / "results.md").read_text() == text
    assert json.loads((tmp_path / "results.jsonl").read_text())["commit"] == "abc"
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("ap", "last", "counts"),
    [
        (30.0, [30.0, 30.2, 29.9, 30.1], True),
        (19.9, [19.9, 19.9, 19.9, 19.9], False),
        (30.0, [24.0, 26.0, 28.0, 30.0], False),  # still rising
        (None, [0.0, 0.0, 0.0, 0.0], False),
    ],
)
def test_the_baseline_must_be_good_and_flat(
    tools: dict[str, ModuleType], tmp_path: Path, ap: float | None, last: list, counts: bool
) -> None:
    report = tools["study_report"]
    run = make_run(tmp_path / "run", ap, [1.0] * 15 + last[:1] + last)
    row = report.make_row("r18_fpn", run, tmp_path / "cost.json")
    verdict = report.verdict([row], "r18_fpn")
    assert verdict.endswith("the comparison counts.") == counts
    assert "does not count" in report.verdict([], "r18_fpn")
    row["change_over_last_fifth"] = None
    assert "too seldom" in report.verdict([row], "r18_fpn")


def test_runs_that_cannot_be_reported(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    report = tools["study_report"]
    with pytest.raises(report.StudyReportError, match="nowhere"):
        report.make_row("r18_fpn", tmp_path / "nowhere", tmp_path / "cost.json")
    run = make_run(tmp_path / "run", 30.0, [])
    results = json.loads((run / "results.json").read_text())
    del results["results"]["ema/bbox"]["AP75_tiny"]
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(report.StudyReportError, match="AP75_tiny"):
        report.make_row("r18_fpn", run, tmp_path / "cost.json")


def test_list_runs_nothing(
    tools: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tools["run_study"].main(["--output", str(tmp_path / "study"), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 + 4
    assert not (tmp_path / "study").exists()
    assert tools["run_study"].main(["--output", str(tmp_path / "study"), "--steps", "0"]) == 2


def test_costs_of_a_trained_detector(
    tools: dict[str, ModuleType], tmp_path: Path, repository: Path
) -> None:
    pytest.importorskip("benchmarks.harness", reason="benchmarks/harness.py is not here")
    measure_cost = importlib.import_module("measure_cost")
    name = tools["run_study"].ARMS["bh18_fpn"]
    config = load_config(repository / "projects" / "BottomHeavy" / "configs" / name)
    save_config(config, tmp_path / "config.yaml")
    model = instantiate(config.model)
    state = model.state_dict()
    torch.save({"model": state, "ema": {"model": state}}, tmp_path / "model_final.pth")
    threads = torch.get_num_threads()
    try:
        cost = measure_cost.measure(tmp_path, (64, 96))
        larger = measure_cost.measure(tmp_path, (128, 96))
    finally:
        torch.set_num_threads(threads)
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert 0 < cost["backbone_parameters"] < cost["parameters"]
    assert 0 < cost["backbone_gmacs"] < cost["pyramid_gmacs"]
    assert larger["pyramid_gmacs"] == pytest.approx(2 * cost["pyramid_gmacs"], rel=0.01)
    assert cost["latency_ms"] > 0
    assert set(cost) == set(COST)
    command = ["--run", str(tmp_path / "nowhere"), "--output", str(tmp_path / "cost.json")]
    assert measure_cost.main(command) == 2
