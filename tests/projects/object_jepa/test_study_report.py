"""Rows, verdict and table of the study from files made by hand."""

import json

import cv2
import numpy as np
import pytest

from rsd2.projects.object_jepa.study_report import (
    METRICS,
    TELEMETRY,
    make_row,
    read_telemetry,
    verdict,
    write_report,
)
from rsd2.study import StudyReportError

JOB = {"cpu_seconds": 90.0, "command": ["python", "train.py"], "attempts": 1}
BEFORE = {"cpu_seconds": 60.0, "attempts": 3}
RESULTS = {
    "results": {"bbox": {**dict.fromkeys(METRICS, 20.0), "AP50": 45.0, "AP_vt": None}},
    "config": "some.py",
    "commit": "abc",
    "seed": 3,
    "hardware": {"device": "cpu"},
    "versions": {"torch": "2"},
    "time": "2026-01-01T00:00:00Z",
    "max_iter": 100,
}


@pytest.fixture
def folders(tmp_path):
    run, pretraining = tmp_path / "finetune", tmp_path / "pretrain"
    run.mkdir()
    pretraining.mkdir()
    lines = [{"iteration": i - 1, "bbox/AP50": i / 20} for i in range(10, 101, 10)]
    (run / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (run / "results.json").write_text(json.dumps(RESULTS))
    records = [
        {"iteration": step, **dict.fromkeys(TELEMETRY, 0.25), "auc_0_8": None, "alarms": alarms}
        for step, alarms in ((0, []), (50, ["RankMe is low"]))
    ]
    (pretraining / "telemetry.jsonl").write_text("\n".join(map(json.dumps, records)))
    return run, pretraining


def test_row_has_scores_course_telemetry_and_provenance(folders):
    run, pretraining = folders
    row = make_row(run, JOB, arm="JEPA", pretraining=pretraining, pretraining_job=BEFORE)
    assert (row["AP50"], row["AP_vt"], row["weights"]) == (45.0, None, "last")
    assert row["course"][0] == (10, 0.5) and row["change_over_last_fifth"] == pytest.approx(1)
    assert (row["cpu_minutes"], row["pretraining_cpu_minutes"]) == (1.5, 1.0)
    assert row["telemetry"]["iteration"] == 50 and row["attempts"] == 3
    for key in ("config", "commit", "seed", "hardware", "command", "steps"):
        assert row[key], key
    scratch = make_row(run, JOB, arm="scratch")
    assert (scratch["telemetry"], scratch["attempts"]) == ({}, 1)
    assert scratch["pretraining_cpu_minutes"] == 0


def test_report_shows_every_number_and_writes_all_files(folders, tmp_path):
    run, pretraining = folders
    rows = [
        make_row(run, JOB, arm="scratch"),
        make_row(run, JOB, arm="JEPA", pretraining=pretraining, pretraining_job=BEFORE),
    ]
    text = write_report(rows, tmp_path, "scratch", {"JEPA": read_telemetry(pretraining)})
    assert text == (tmp_path / "results.md").read_text()
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        *("JEPA", "45.0", "20.0", "-", "20.0", "20.0", "20.0", "+1.0", "100", "1.5 (1.0)")
    ]
    assert "- JEPA: a training was started 3 times" in text and "scratch: a training" not in text
    assert "the comparison counts" in text and "alarm, JEPA: RankMe is low" in text
    assert any(line.startswith("| rank_me") and "0.250" in line for line in lines)
    assert any(line.startswith("| auc_0_8") and "-" in line for line in lines)
    read = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in read] == ["scratch", "JEPA"]
    assert np.ptp(cv2.imread(str(tmp_path / "curves.png"))) > 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("score", "change", "words"),
    [
        (40.0, 1.0, "counts"),
        (39.9, 0.0, "does not count; train longer"),
        (60.0, -1.6, "does not count; train longer"),
        (60.0, None, "too seldom to tell its course (asked"),
        (None, 0.0, "does not count"),
    ],
)
def test_verdict(score, change, words):
    row = {"arm": "scratch", "AP50": score, "change_over_last_fifth": change}
    text = verdict([row], "scratch")
    assert words.split(" (asked")[0] in text
    assert ("comparison counts" in text) == (words == "counts")
    assert "was not trained" in verdict([row], "other")


@pytest.mark.parametrize("name", ["finetune/results.json", "pretrain/telemetry.jsonl"])
def test_what_is_missing_is_named(folders, tmp_path, name):
    run, pretraining = folders
    (tmp_path / name).unlink()
    with pytest.raises(StudyReportError, match=name.split("/")[1]):
        make_row(run, JOB, arm="JEPA", pretraining=pretraining)


def test_missing_scores_are_named(folders):
    run, _ = folders
    results = {**RESULTS, "results": {"bbox": {"AP50": 1.0}}}
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(StudyReportError, match="has no AP, AP_vt, AP_t, AP_s, AP_m in bbox"):
        make_row(run, JOB, arm="JEPA")
