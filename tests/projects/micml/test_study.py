"""The study of motion: variants that differ in their parts, and an honest verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import load_config
from rsd2.projects.micml.study import (
    ARMS,
    FROM_CROPS,
    MOTION_ON,
    MotionSettings,
    compare_pairs,
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
        assert set(ARMS["micml"].overrides) <= set(on.command)
    only = study_jobs(MotionSettings(arms=("static",), seeds=(0,), start="random"), tmp_path)
    assert [job.name for job in only] == ["videos_train", "videos_test", "static"]


def test_variants_differ_in_their_parts_alone(repository: Path) -> None:
    configs = {
        arm: load_config(repository / "projects/MICML/configs" / one.config, one.overrides)
        for arm, one in ARMS.items()
    }
    parts = {
        arm: (cfg.model.static is not None, cfg.model.dynamic is not None)
        for arm, cfg in configs.items()
    }
    assert parts.pop("static") == (True, False) and parts.pop("dynamic") == (False, True)
    assert set(parts.values()) == {(True, True)}
    motions = {arm: configs[arm].model.dynamic.motion for arm in parts}
    assert motions["dsfnet"] is motions["dsfnet_continued"] is None
    layers = {arm: one.num_layers for arm, one in motions.items() if one is not None}
    assert layers.pop("micml_one_layer") == 1 and set(layers.values()) == {3}
    controls = {(one.prior, one.shuffled_scan) for one in motions.values() if one is not None}
    kinds = {("learned", False), ("constant", False), ("random", False), ("learned", True)}
    assert controls == kinds
    for cfg in configs.values():
        cfg.train.init_strict = True
        for key in ("optimizer", "lr_multiplier", "train"):
            assert cfg[key] == configs["micml"][key]
        for key in ("head_width", "top_k", "radius_rule", "size_weight"):
            assert cfg.model[key] == configs["micml"].model[key]
        assert cfg.model.static in (None, configs["micml"].model.static)


def rows_of(**f1: list[list[float]]) -> list[dict]:
    """Rows of some arms, a list of the videos' F1 for each seed."""
    return [
        {"arm": arm, "seed": seed, "videos": dict(zip("abcd", values))}
        for arm, seeds in f1.items()
        for seed, values in enumerate(seeds)
    ]


@pytest.mark.parametrize(
    ("constant", "end"),
    [
        ([[40.0, 50, 30, 60], [41, 50, 31, 60]], "+10.0) over micml_constant: mining helps."),
        ([[50.0, 60, 40, 70], [51, 60, 41, 70]], "that mining helps is not shown."),
        (None, "micml and micml_constant were not both trained: no verdict."),
    ],
)
def test_mining_helps_if_it_beats_dsfnet_and_a_constant(constant, end: str) -> None:
    micml = [[50.0, 60, 40, 70], [51, 60, 41, 70]]
    dsfnet = [[value - 5 for value in values] for values in micml]
    arms = {"micml": micml, "dsfnet": dsfnet}
    rows = rows_of(**arms, **({"micml_constant": constant} if constant else {}))
    assert verdict(rows).endswith(end)


def test_pairs_are_compared_over_seeds_and_videos() -> None:
    rows = rows_of(micml=[[50.0, 60], [40, 70]], dsfnet=[[48.0, 58], [38, 68]])
    head, _, line, end = compare_pairs(rows)[0].splitlines() + compare_pairs(rows)[1:]
    assert "95 % interval" in head and end == ""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["micml", "dsfnet", "+2.00", "+2.00 to +2.00", "2", "2"]
    assert compare_pairs(rows_of(static=[[1.0]])) == []


def test_arms_that_go_on_follow_their_start(tmp_path: Path) -> None:
    settings = MotionSettings(arms=("micml_continued", "dsfnet"), seeds=(0, 1))
    jobs = {job.name: job for job in study_jobs(settings, tmp_path)}
    for suffix in ("", "_seed1"):
        start = f'train.init_checkpoint="{tmp_path}/runs/dsfnet{suffix}/model_final.pth"'
        assert start in jobs[f"micml_continued{suffix}"].command
        crops = f'train.init_checkpoint="{tmp_path}/runs/backbone/model_final.pth"'
        assert crops in jobs[f"dsfnet{suffix}"].command
    with pytest.raises(ValueError, match="micml_continued goes on from dsfnet; add it"):
        MotionSettings(arms=("micml_continued",))
    with pytest.raises(ValueError, match="start must be one of crops, random"):
        MotionSettings(start="imagenet")


def test_the_dla_of_the_crops_fills_the_static_branch(repository: Path) -> None:
    folder = repository / "projects" / "MICML" / "configs"
    classifier = instantiate(load_config(folder / "dla34_small_synthetic_crops.py").model)
    cfg = load_config(folder / ARMS["micml"].config, [FROM_CROPS])
    model = instantiate(cfg.model)
    report = instantiate(cfg.train.init_inherit).load(
        model, {"model": classifier.state_dict()}, "crops.pth"
    )
    expected = classifier.backbone.net.state_dict()
    found = model.static.backbone.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert set(report.dropped) == {"head.weight", "head.bias"}


def test_the_scores_of_the_videos_are_read(tmp_path: Path) -> None:
    details = study_report(MotionSettings()).details
    run = StudyRun("micml", "runs/micml", "micml")
    with pytest.raises(StudyReportError, match=r"micml.*metrics_moving_objects\.json cannot be"):
        details(tmp_path, run)
    path = tmp_path / "runs/micml/inference/metrics_moving_objects.json"
    path.parent.mkdir(parents=True)
    sweep = {"score_above": 0.3, "videos": {"001": {"F1": 50.0}, "002": {"F1": 70.0}}}
    path.write_text(json.dumps({"protocol": {"protocols": [{"by_score": [sweep]}]}}))
    assert details(tmp_path, run) == {"videos": {"001": 50.0, "002": 70.0}}
    # A protocol that chooses its threshold on the scored videos is none to compare by.
    path.write_text(json.dumps({"protocol": {"protocols": [{"by_score": [sweep, sweep]}]}}))
    with pytest.raises(StudyReportError, match="too many values"):
        details(tmp_path, run)
