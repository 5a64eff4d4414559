"""The study of motion: variants that differ in their parts, and an honest verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsd2.config import load_config
from rsd2.projects.micml.study import (
    CONFIGS,
    LEAST_GAIN,
    MOTION_ON,
    MotionSettings,
    study_jobs,
    study_report,
    verdict,
)
from rsd2.study import StudyReportError, StudyRun


def test_motion_at_test_is_the_same_model(tmp_path: Path) -> None:
    jobs = {job.name: job for job in study_jobs(MotionSettings(seeds=(0, 1)), tmp_path)}
    for suffix in ("", "_seed1"):
        on = jobs[MOTION_ON + suffix]
        assert on.needs == (f"micml{suffix}",) and "--eval-only" in on.command
        start = f'train.init_checkpoint="{tmp_path}/runs/micml{suffix}/model_final.pth"'
        assert start in on.command and "model.motion_at_eval=true" in on.command
    only = study_jobs(MotionSettings(arms=("static",)), tmp_path)
    assert [job.name for job in only] == ["videos_train", "videos_test", "static"]


def test_variants_differ_in_their_parts_alone(repository: Path) -> None:
    configs = {
        arm: load_config(repository / "projects" / "MICML" / "configs" / name)
        for arm, name in CONFIGS.items()
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
    rows = [{"arm": arm, "group": "", "seed": 0, "F1": f1} for arm, f1 in scores.items()]
    assert verdict(rows).endswith(end)


def test_every_seed_of_the_static_variant_must_be_good_and_gains_are_averaged() -> None:
    scores = {("static", 0): 40.0, ("micml", 0): 49.0, ("static", 1): 30.0, ("micml", 1): 41.0}
    rows = [{"arm": arm, "group": "", "seed": k, "F1": f1} for (arm, k), f1 in scores.items()]
    assert verdict(rows).endswith(f"+{LEAST_GAIN:.1f} points (asked: 10). Met.")
    rows[2]["F1"], rows[3]["F1"] = 20.0, 31.0
    assert verdict(rows).endswith("Not met.")


def test_the_threshold_of_the_reported_score_is_read(tmp_path: Path) -> None:
    details = study_report(MotionSettings()).details
    run = StudyRun("micml", "runs/micml", "micml")
    with pytest.raises(StudyReportError, match=r"micml.*metrics_moving_objects\.json cannot be"):
        details(tmp_path, run)
    path = tmp_path / "runs/micml/inference/metrics_moving_objects.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"protocol": {"protocols": [{"reported_score_above": 0.25}]}}))
    assert details(tmp_path, run) == {"score_above": 0.25}
    path.write_text(json.dumps({"protocol": {"protocols": []}}))
    with pytest.raises(StudyReportError, match="IndexError"):
        details(tmp_path, run)
