"""The study of motion: equal budgets, rows from files, and an honest verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from rsd2.config import load_config
from rsd2.projects.micml.study import ARMS, MOTION_ON, StudySettings, study_jobs
from rsd2.projects.micml.study_report import METRICS, verdict, write_report
from rsd2.study import StudyReportError


@pytest.fixture(scope="module")
def tool(load_module):
    return load_module("projects/MICML/tools/run_study.py")


def test_all_variants_get_the_same_budget(tmp_path: Path) -> None:
    """The commands of the trainings differ in the config and in the folder, and in nothing else."""
    settings = StudySettings(steps=40, overrides=("optimizer.lr=0.001",))
    jobs = {job.name: job for job in study_jobs(settings, tmp_path)}
    assert list(jobs) == ["videos_train", "videos_test", *ARMS, MOTION_ON]
    shared = set()
    for arm, config in ARMS.items():
        words = [w for w in jobs[arm].command if not w.startswith("train.output_dir=")]
        words.remove(f"projects/MICML/configs/{config}")
        shared.add(tuple(words))
    (words,) = shared
    assert {"train.max_iter=40", "train.seed=0", "optimizer.lr=0.001", "--resume"} <= set(words)
    seeds = [jobs[name].command[-1] for name in ("videos_train", "videos_test")]
    assert seeds[0] != seeds[1]


def test_motion_at_test_is_the_same_model(tmp_path: Path) -> None:
    jobs = {job.name: job for job in study_jobs(StudySettings(), tmp_path)}
    on = jobs[MOTION_ON]
    assert on.needs == ("micml",) and "--eval-only" in on.command
    assert f'train.init_checkpoint="{tmp_path}/runs/micml/model_final.pth"' in on.command
    assert "model.motion_at_eval=true" in on.command
    only = study_jobs(StudySettings(arms=("static",)), tmp_path)
    assert [job.name for job in only] == ["videos_train", "videos_test", "static"]


def test_any_folder_can_hold_a_study(tmp_path: Path) -> None:
    """Its name may have what means something in an override."""
    folder = tmp_path / "a (1), b=2"
    for job in study_jobs(StudySettings(), folder)[2:]:
        start = job.command.index("--config-file") + 1
        overrides = [word for word in job.command[start + 1 :] if "=" in word]
        cfg = load_config(job.command[start], overrides)
        assert cfg.train.output_dir == str(folder / "runs" / job.name)
        if job.name == MOTION_ON:
            assert cfg.train.init_checkpoint == str(folder / "runs/micml/model_final.pth")


def test_variants_differ_in_their_parts_alone(repository: Path) -> None:
    configs = {
        arm: load_config(repository / "projects" / "MICML" / "configs" / name)
        for arm, name in ARMS.items()
    }
    parts = {
        arm: (cfg.model.static is not None, cfg.model.dynamic is not None)
        for arm, cfg in configs.items()
    }
    assert parts == {
        "static": (True, False), "dynamic": (False, True), "dsfnet": (True, True),
        "micml": (True, True),
    }  # fmt: skip
    assert configs["dsfnet"].model.dynamic.motion is None
    assert configs["micml"].model.dynamic.motion is not None
    for cfg in configs.values():
        for key in ("optimizer", "lr_multiplier", "train"):
            assert cfg[key] == configs["micml"][key]
        for key in ("head_width", "top_k", "radius_rule", "size_weight"):
            assert cfg.model[key] == configs["micml"].model[key]
        assert cfg.model.static in (None, configs["micml"].model.static)


def make_study(folder: Path, f1: dict[str, float]) -> None:
    """The files of a finished study."""
    (folder / "jobs").mkdir(parents=True)
    for arm, value in f1.items():
        run = folder / "runs" / arm
        (run / "inference").mkdir(parents=True)
        scores = {**dict.fromkeys(METRICS, 50.0), "F1": value}
        results = {
            "results": {"bbox": scores}, "seed": 0, "commit": "abc", "iteration": 30,
            "config": f"{arm}.py", "hardware": {"cpu_cores": 2}, "versions": {"torch": "2"},
            "time": "now",
        }  # fmt: skip
        (run / "results.json").write_text(json.dumps(results))
        protocols = {"protocol": {"protocols": [{"reported_score_above": 0.25}]}}
        (run / "inference" / "metrics_moving_objects.json").write_text(json.dumps(protocols))
        lines = [json.dumps({"iteration": k, "total_loss": 2.0 / (k + 1)}) for k in (0, 1, 1, 2)]
        (run / "metrics.json").write_text("\n".join([*lines, '{"iteration": 3, "tot']))
        marker = {"name": arm, "command": ["python"], "cpu_seconds": 90.0, "attempts": 1}
        (folder / "jobs" / f"{arm}.json").write_text(json.dumps(marker))


def test_the_report(tmp_path: Path) -> None:
    scores = {"static": 41.0, "micml": 52.5, MOTION_ON: 49.0}
    make_study(tmp_path, scores)
    text = write_report(StudySettings(arms=("static", "micml")), tmp_path)
    assert (tmp_path / "results.md").read_text() == text
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["arm"]: row["F1"] for row in rows} == scores
    assert all(row["commit"] == "abc" and row["cpu_minutes"] == 1.5 for row in rows)
    assert "| static | 41.0 |" in text and "| 0.25 |" in text
    assert "52.5 with its motion module off at test: +11.5 points (asked: 10); with it on" in text
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("scores", "end"),
    [
        ({"static": 40.0, "micml": 50.0}, "+10.0 points (asked: 10). Met."),
        ({"static": 40.0, "micml": 49.9}, "+9.9 points (asked: 10). Not met."),
        ({"static": 20.0, "micml": 60.0}, "+40.0 points (asked: 10). Not met."),
        ({"static": None, "micml": None}, "+0.0 points (asked: 10). Not met."),
        ({"static": 40.0, "micml": 45.0, MOTION_ON: 55.0}, "with it on it reaches 55.0. Not met."),
        ({"static": 40.0, "dsfnet": 55.0}, "no verdict."),
    ],
)
def test_the_verdict(scores: dict[str, float | None], end: str) -> None:
    assert verdict([{"arm": arm, "F1": f1} for arm, f1 in scores.items()]).endswith(end)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("results.json", r"micml.results\.json cannot be read"),
        ("inference/metrics_moving_objects.json", "micml cannot be reported"),
    ],
)
def test_a_missing_result_is_named(tmp_path: Path, file: str, message: str) -> None:
    make_study(tmp_path, {"static": 41.0, "micml": 52.5, MOTION_ON: 49.0})
    (tmp_path / "runs" / "micml" / file).unlink()
    with pytest.raises(StudyReportError, match=message):
        write_report(StudySettings(arms=("static", "micml")), tmp_path)


def test_impossible_sizes_are_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match="arms are some of static"):
        StudySettings(arms=("both",))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        replace(StudySettings(), steps=0)
    assert tool.main(["--output", str(tmp_path), "--slots", "0"]) == 2
    assert tool.main(["--output", str(tmp_path), "--steps", "0"]) == 2
    assert "steps must be at least 1" in capsys.readouterr().err


def test_the_list_runs_nothing(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--steps", "7", "--arms", "static", "--standing-lanes", "0.3", "--set", "a.b=1"]
    assert tool.main(["--output", str(tmp_path), "--list", *flags]) == 0
    printed = capsys.readouterr().out
    assert "train.max_iter=7" in printed and "--standing-lanes 0.3" in printed
    assert "a.b=1" in printed and "micml_small" not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_tiny_study_from_videos_to_verdict(tool: ModuleType, tmp_path: Path) -> None:
    """Everything that the commands do, once; and nothing the second time."""
    flags = ["--output", str(tmp_path), "--arms", "static", "micml", "--steps", "2"]
    flags += ["--train-videos", "1", "--test-videos", "1", "--num-frames", "3", "--size", "48"]
    assert tool.main(flags) == 0
    assert "asked: 10" in (tmp_path / "results.md").read_text()
    before = (tmp_path / "runs" / "micml" / "results.json").stat().st_mtime_ns
    assert tool.main(flags) == 0
    assert (tmp_path / "runs" / "micml" / "results.json").stat().st_mtime_ns == before
