"""projects/ObjectJEPA/tools/run_study.py: the whole story at toy size, and what stops it."""

import json
import sys

import cv2
import numpy as np
import pytest

from rsd2.projects.object_jepa.study import PRESETS, study_jobs
from rsd2.study import change_settings
from rsd2.study.job_queue import JobError, JobQueue


@pytest.fixture(scope="module")
def tool(load_module):
    return load_module("projects/ObjectJEPA/tools/run_study.py")


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
        (["arms=sam"], "arms are some of scratch"),
        (["--slots", "0"], "--slots must be at least 1, got 0"),
    ):
        assert tool.main(["--output", str(tmp_path / "out"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_failed_command_is_named_with_its_log(tool, tmp_path, capsys):
    (tmp_path / "data").write_text("no folder")
    assert tool.main(["--preset", "quick", "--output", str(tmp_path), "--slots", "1"]) == 1
    assert "scenes_train failed; see the end of" in capsys.readouterr().err


@pytest.mark.slow
def test_whole_story_at_toy_size_and_again_from_what_is_there(tool, tmp_path, capsys):
    arguments = ["--preset", "quick", "--output", str(tmp_path)]
    assert tool.main(arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in rows] == ["scratch", "JEPA, object mask"]
    assert all(row["steps"] == 4 and row["commit"] and row["cpu_minutes"] > 0 for row in rows)
    assert rows[0]["telemetry"] == {} and rows[1]["telemetry"]["iteration"] == 2
    assert rows[1]["pretraining_cpu_minutes"] > 0
    table = (tmp_path / "results.md").read_text()
    assert table in capsys.readouterr().out and "the comparison does not count" in table
    assert np.ptp(cv2.imread(str(tmp_path / "curves.png"))) > 0
    assert (tmp_path / "pretrain" / "object_latent" / "telemetry.png").is_file()
    log = (tmp_path / "jobs" / "finetune_object_latent.log").read_text()
    assert "inherited 52 tensors: backbone.net.patch_embed.proj 2, backbone.net.blocks 48" in log
    # everything is there, so nothing runs; other sizes are not mixed with it
    settings = PRESETS["quick"]
    JobQueue(study_jobs(settings, tmp_path), tmp_path, slots=1, environment={"PATH": ""}).run()
    other = change_settings(settings, ["finetune_steps=5"])
    with pytest.raises(JobError, match=r"finetune_scratch\.json is of another command"):
        JobQueue(study_jobs(other, tmp_path), tmp_path, slots=1, environment={})
    assert sys.executable not in json.dumps(rows), "rows say nothing of this machine's folders"
