"""The studies of the projects: equal budgets, commands that can be run, one command line."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

import rsd2.projects
from rsd2.config import load_config
from rsd2.study import JobError, JobQueue, change_settings

STUDIES = [module.__name__ for module in rsd2.projects.find_modules("study")]
TOYS = {  # project -> preset of a toy study, its sizes, and one that other results must not have
    "mutdet": (
        "quick",
        "arms=none,mutdet fractions=0.5 train_images=12 val_images=3 images=2",
        "finetune_steps=12",
    ),
    "object_jepa": ("quick", "finetune_steps=4", "finetune_steps=5"),
    "micml": (
        "study",
        "arms=dsfnet,micml,micml_continued seeds=0 steps=2 train_videos=1 test_videos=1 "
        "num_frames=3 size=48 crop_scenes=2 crop_steps=1",
        "steps=3",
    ),
}


@pytest.fixture(params=STUDIES, ids=lambda name: name.split(".")[2])
def study(request):
    return importlib.import_module(request.param)


@pytest.fixture
def settings(study):
    """The largest study, with two seeds."""
    full = study.PRESETS["study"]
    # Where pre-trainings have seeds of their own, those are changed too.
    names = [name for name in ("seeds", "pretrain_seeds") if hasattr(full, name)]
    return replace(full, arms=full.known_arms, **dict.fromkeys(names, (0, 5)))


def config_of(job):
    """The config that a command trains; None if it trains none."""
    words = job.command
    if "--config-file" not in words:
        return None
    place = words.index("--config-file") + 1
    return load_config(words[place], [word for word in words[place + 1 :] if "=" in word])


def test_every_project_has_a_study():
    assert {name.split(".")[2] for name in STUDIES} == {
        "bottom_heavy", "micml", "mutdet", "object_jepa"
    }  # fmt: skip


def test_jobs_come_after_what_they_need_and_every_run_has_one(study, settings, tmp_path):
    seen = {}
    plan = study.plan(settings, tmp_path)
    for job in (*plan.jobs, *plan.alone):
        assert set(job.needs) <= set(seen) and job.name not in seen, job.name
        seen[job.name] = job
        for made in job.makes:
            parts = [str(tmp_path / made), str((tmp_path / made).parent)]
            assert any(part in word for part in parts for word in job.command), job.name
    runs = next(one for one in plan.report.args if isinstance(one, list))
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        assert f"{run.folder}/results.json" in seen[run.job].makes
        assert set(run.stages) <= set(seen)


def test_every_override_means_something_in_any_folder(study, settings):
    """The name of a folder may have what means something in an override."""
    folder = Path("a (1), b=2")
    configs = [config_of(job) for job in study.plan(settings, folder).jobs]
    outputs = [cfg.train.output_dir for cfg in configs if cfg is not None]
    assert len(set(outputs)) == len(outputs) > 1
    assert all(output.startswith(f"{folder}/") for output in outputs)


def test_arms_get_the_same_budget(study, settings):
    """Of the same stage and seed, trainings differ in the config's file, start and parts alone."""
    budgets = {}
    for job in study.plan(settings, Path("OUT")).jobs:
        cfg = config_of(job)
        # The embedder is no arm: every arm starts from it.
        if cfg is None or "--eval-only" in job.command or job.name == "embedder":
            continue
        # This arm spends the time of a dearer one on more steps, on purpose.
        if job.name.startswith("pretrain_detreg_compute"):
            continue
        stage = job.name.split("_")[0] if job.name.startswith(("pre", "fine")) else "training"
        fraction = cfg.dataloader.train.dataset.get("fraction")
        for key in [key for key in cfg.train if key.startswith(("init_", "output_dir"))]:
            del cfg.train[key]
        # How a pre-training moves its target is what its arm is about.
        if "target" in cfg.train.get("hooks", {}):
            del cfg.train.hooks.target
        if job.name == "backbone":  # no arm either
            continue
        budget = [OmegaConf.to_yaml(cfg[key]) for key in ("train", "optimizer", "lr_multiplier")]
        budget.append(cfg.dataloader.train.total_batch_size)
        budgets.setdefault((stage, fraction, cfg.train.seed), []).append(budget)
    assert {key[2] for key in budgets} == {0, 5}
    for found in budgets.values():
        assert all(one == found[0] for one in found) and len(found) > 1


def test_list_prints_sizes_and_commands_and_runs_nothing(study, tmp_path, capsys):
    output = tmp_path / "study"
    words = ["seeds=77", "train.log_period=9"]
    assert study.main(["--output", str(output), "--list", *words]) == 0
    printed = capsys.readouterr().out
    assert "seeds=(77,)" in printed and "train.seed=77" in printed and "log_period=9" in printed
    plan = study.plan(change_settings(study.PRESETS["study"], ["seeds=77"]), output)
    assert all(f"\n{job.name}: " in printed for job in plan.jobs)
    assert all(f" CPU min: {kind}\n" in printed for kind in plan.cpu_minutes)
    assert not output.exists()


def test_the_expected_time_grows_with_the_trainings(study, tmp_path):
    one, three = (
        study.plan(change_settings(study.PRESETS["study"], [f"seeds={seeds}"]), tmp_path)
        for seeds in ("0", "0,1,2")
    )
    first, last = (sum(plan.cpu_minutes.values()) for plan in (one, three))
    assert 1 < first < last <= 3 * first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stepps=3"], "'stepps=3': write name=value"),
        (["arms=sam"], "arms are some of "),
        (["--slots", "0"], "--slots must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_line(study, tmp_path, capsys, words, message):
    assert study.main(["--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_failed_command_is_named_with_its_log(tmp_path, capsys):
    (tmp_path / "data").write_text("no folder")
    study = importlib.import_module("rsd2.projects.mutdet.study")
    assert study.main(["--preset", "quick", "--output", str(tmp_path), "--slots", "1"]) == 1
    assert "scenes_train failed; see the end of" in capsys.readouterr().err
    log = (tmp_path / "jobs" / "scenes_train.log").read_text()
    assert "rsd2 synthesize: " in log and str(tmp_path / "data") in log


def check_mutdet(folder, rows):
    assert [row["arm"] for row in rows] == ["none", "MutDet"]
    assert rows[1]["stages_cpu_minutes"].keys() == {"pretrain_mutdet"}
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/') == 5 and "no pre-training" in page
    for name in ("curves.png", "detections.png"):
        assert np.ptp(cv2.imread(str(folder / name))) > 0
    assert "recall at IoU 0.5" in (folder / "results.md").read_text()
    log = (folder / "jobs" / "finetune_mutdet_50.log").read_text()
    assert "dropped" in log and "of the pre-training only" in log


def check_object_jepa(folder, rows):
    assert [row["arm"] for row in rows] == ["scratch", "JEPA, blocks and objects"]
    assert rows[0]["telemetry"] == {} and rows[1]["telemetry"]["iteration"] == 2
    assert rows[1]["stages_cpu_minutes"]["pretrain_object_latent"] > 0
    assert "the comparison does not count" in (folder / "results.md").read_text()
    assert (folder / "pretrain" / "object_latent" / "telemetry.png").is_file()
    log = (folder / "jobs" / "finetune_object_latent.log").read_text()
    assert "inherited 52 tensors: backbone.net.patch_embed.proj 2, backbone.net.blocks 48" in log


def check_micml(folder, rows):
    arms = ["dsfnet", "micml", "micml_continued", "micml_motion_on"]
    assert [row["arm"] for row in rows] == arms
    results = (folder / "results.md").read_text()
    assert "no verdict" in results and "minus that of" in results
    log = (folder / "jobs" / "micml.log").read_text()
    assert "inherited" in log and "of the pre-training only" in log


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_whole_story_at_toy_size_and_again_from_what_is_there(name, tmp_path, capsys):
    study = importlib.import_module(f"rsd2.projects.{name}.study")
    preset, sizes, other = TOYS[name]
    assert study.main(["--output", str(tmp_path), "--preset", preset, *sizes.split()]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert all(row["steps"] and row["commit"] and row["cpu_minutes"] > 0 for row in rows)
    assert sys.executable not in json.dumps(rows), "rows say nothing of this machine's folders"
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
    assert np.ptp(cv2.imread(str(tmp_path / "curves.png"))) > 0
    {"mutdet": check_mutdet, "object_jepa": check_object_jepa, "micml": check_micml}[name](
        tmp_path, rows
    )

    # everything is there, so nothing runs; other sizes are not mixed with it
    settings = change_settings(study.PRESETS[preset], sizes.split())
    jobs = study.plan(settings, tmp_path).jobs
    JobQueue(jobs, tmp_path, slots=1, environment={"PATH": ""}).run()
    jobs = study.plan(change_settings(settings, [other]), tmp_path).jobs
    with pytest.raises(JobError, match=r"\.json is of another command"):
        JobQueue(jobs, tmp_path, slots=1, environment={})
