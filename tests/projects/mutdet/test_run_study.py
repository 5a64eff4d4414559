"""projects/MutDet/tools/run_study.py: the whole story at toy size, and what stops it."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.projects.mutdet.study import PRESETS, study_jobs
from rsd2.study import change_settings
from rsd2.study.job_queue import JobError, JobQueue

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool(load_module):
    return load_module("projects/MutDet/tools/run_study.py")


def test_list_prints_sizes_and_commands_and_runs_nothing(tool, tmp_path, capsys):
    output = tmp_path / "study"
    assert tool.main(["--output", str(output), "--list", "finetune_steps=77"]) == 0
    printed = capsys.readouterr().out
    assert "finetune_steps=77" in printed and "train.max_iter=77" in printed
    names = [job.name for job in study_jobs(PRESETS["study"], output)]
    assert all(f"\n{name}: " in printed for name in names) and not output.exists()


def test_wrong_arguments_are_one_line(tool, tmp_path, capsys):
    for words, message in (
        (["steps=3"], "'steps=3': write name=value"),
        (["--slots", "0"], "--sl"),
    ):
        assert tool.main(["--output", str(tmp_path / "out"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_failed_command_is_named_with_its_log(tool, tmp_path, capsys):
    (tmp_path / "data").write_text("no folder")
    arguments = ["--preset", "quick", "--output", str(tmp_path), "--slots", "1"]
    assert tool.main(arguments) == 1
    captured = capsys.readouterr()
    assert "scenes_train failed; see the end of" in captured.err
    log = (tmp_path / "jobs" / "scenes_train.log").read_text()
    assert "make_synthetic:" in log and str(tmp_path / "data") in log


@pytest.mark.slow
def test_whole_story_at_toy_size_and_again_from_what_is_there(tool, tmp_path, capsys):
    sizes = ["arms=none,mutdet", "fractions=0.5", "train_images=12", "val_images=3"]
    arguments = ["--preset", "quick", "--output", str(tmp_path), "--images", "2", *sizes]
    assert tool.main(arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in rows] == ["none", "MutDet"]
    assert all(row["steps"] == 10 and row["commit"] and row["cpu_minutes"] > 0 for row in rows)
    assert rows[1]["stages_cpu_minutes"].keys() == {"pretrain_mutdet"}
    page = (tmp_path / "report.html").read_text()
    for name in ("curves.png", "detections.png"):
        assert f'src="{name}"' in page and np.ptp(cv2.imread(str(tmp_path / name))) > 0
    table = (tmp_path / "results.md").read_text()
    assert table in capsys.readouterr().out and "recall at IoU 0.5" in table
    log = (tmp_path / "jobs" / "finetune_mutdet_50.log").read_text()
    assert "dropped" in log and "of the pre-training only" in log
    # everything is there, so nothing runs; other sizes are not mixed with it
    settings = change_settings(PRESETS["quick"], sizes)
    JobQueue(study_jobs(settings, tmp_path), tmp_path, slots=1, environment={"PATH": ""}).run()
    other = change_settings(settings, ["finetune_steps=11"])
    with pytest.raises(JobError, match=r"finetune_none_50\.json is of another command"):
        JobQueue(study_jobs(other, tmp_path), tmp_path, slots=1, environment={})
    assert sys.executable not in json.dumps(rows), "rows say nothing of this machine's folders"
