"""Rows and table of the study from files made by hand."""

import json
import math

import cv2
import numpy as np
import pytest

from rsd2.projects.mutdet.study_report import (
    format_table,
    late_change,
    make_row,
    plot_study,
    read_last,
    read_losses,
)
from rsd2.study import StudyReportError, write_rows

RESULTS = {
    "results": {
        "bbox": {"AP50": 40.0, "AP75": 10.0, "AP": 20.0, "AP50-ship": 1.0},
        "ema/bbox": {"AP50": 50.0, "AP75": None, "AP": 25.0},
    },
    "config": "some.py",
    "commit": "abc",
    "seed": 3,
    "hardware": {"device": "cpu"},
    "versions": {"torch": "2"},
    "time": "2026-01-01T00:00:00Z",
    "max_iter": 100,
}
JOB = {"cpu_seconds": 600.0, "command": ["train.py"], "attempts": 1}


@pytest.fixture
def run(tmp_path):
    lines = [{"iteration": i, "total_loss": 10.0 if i < 90 else 9.9, "lr": 1.0} for i in range(100)]
    lines += lines[40:60]  # a resumed training
    lines.append({"iteration": 99, "bbox/AP50": 1.0, "retrieval_decoder": 0.5})
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 100, "tot'
    (tmp_path / "metrics.json").write_text(text)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    return tmp_path


def test_losses_are_read_once_each(run):
    iterations, losses = read_losses(run)
    assert iterations.tolist() == list(range(100)) and losses[89:91].tolist() == [10.0, 9.9]
    assert late_change(iterations, losses) == pytest.approx(-1)
    assert math.isnan(late_change(iterations[:5], losses[:5]))
    assert read_last(run, ["retrieval", "lr"]) == {"retrieval_decoder": 0.5, "lr": 1.0}


def test_row_has_provenance_and_the_averaged_scores(run):
    stages = {"pretrain": {"cpu_seconds": 120.0}}
    row = make_row(run, JOB, arm="mutdet", fraction=0.1, stages=stages)
    assert (row["AP50"], row["AP75"], row["AP"]) == (50.0, None, 25.0)
    assert row["raw_weights"] == {"AP50": 40.0, "AP75": 10.0, "AP": 20.0}
    assert row["loss_is_flat"] and row["loss_change_percent"] == -1.0
    assert row["cpu_minutes"] == 10.0 and row["stages_cpu_minutes"] == {"pretrain": 2.0}
    for key in ("config", "commit", "seed", "hardware", "command", "steps"):
        assert row[key], key
    write_rows([row, {**row, "telemetry": {"recall": math.nan}}], run / "rows.jsonl")
    read = [json.loads(x) for x in (run / "rows.jsonl").read_text().splitlines()]
    assert read == [row, {**row, "telemetry": {"recall": None}}]
    telemetry = {"recall": 0.5, "retrieval": {"boxes": 1 / 3, "chance": math.nan}}
    table = format_table([row], telemetry).splitlines()
    assert table[2] == "| mutdet | 10 % | 50.0 | - | 25.0 | -1.0 %, flat | 100 | 10 (2) |"
    assert "- recall: 0.500" in table and "- retrieval: boxes 0.333, chance -" in table


def test_plot(run):
    row = make_row(run, JOB, arm="none", fraction=0.1, stages={})
    rows = [row, {**row, "arm": "mutdet"}, {**row, "fraction": 1.0, "AP50": None}]
    plot_study(rows, {"none, 10 %": read_losses(run)}, run / "plot.png")
    assert np.ptp(cv2.imread(str(run / "plot.png"))) > 0
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, r"results\.json cannot be read"),
        ("metrics.json", None, r"metrics\.json is missing"),
        ("metrics.json", '{"iteration": 1}\n', "holds no total_loss"),
    ],
)
def test_what_is_missing_is_named(run, name, content, message):
    (run / name).unlink()
    if content:
        (run / name).write_text(content)
    with pytest.raises(StudyReportError, match=message):
        make_row(run, JOB, arm="none", fraction=1.0, stages={})
