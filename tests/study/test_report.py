"""Rows, table and files of a report, from the files of a study made by hand."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rsd2.study import StudyReport, StudyReportError, StudyRun, read_markers, write_report
from rsd2.study.report import (
    describe_origins,
    make_row,
    read_course,
    read_records,
    read_results,
    write_rows,
)

RUNS = [
    StudyRun("base", "runs/base", "base"),
    StudyRun("new", "runs/new", "new", stages=("before",)),
]
REPORT = StudyReport(
    metrics={"AP50": "AP50", "AP": "AP of all"},
    baseline="base",
    caption="What.",
    course="AP50",
    least=40.0,
    flat=1.5,
    columns={"double": lambda row: str(2 * row["extra"])},
    details=lambda folder, run: {"extra": len(run.stages)},
    appendix=lambda rows: ["- an appendix"],
    panels=lambda rows: {"more": {"line": [(1, 2.0), (2, 3.0)], "nothing": []}},
)


def make_study(folder, runs=RUNS, seed=0, ap50=45.0):
    """What a training every ten steps of 100 leaves, evaluated with averaged weights."""
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    for run in runs:
        place = folder / run.folder
        place.mkdir(parents=True)
        scores = {"ema/bbox": {"AP50": ap50, "AP": None}, "bbox": {"AP50": 1.0, "AP": 2.0}}
        results = {
            "results": scores, "config": "some.py", "commit": "abc", "seed": seed,
            "hardware": {"device": "cpu"}, "versions": {"torch": "2"}, "time": "now",
            "iteration": 100, "max_iter": 100,
        }  # fmt: skip
        (place / "results.json").write_text(json.dumps(results))
        lines = [
            {"iteration": i - 1, "ema/bbox/AP50": i / 20, "total_loss": 10.0 - i / 100}
            for i in range(10, 101, 10)
        ]
        (place / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
        for name, minutes in ((run.job, 1.5), *((stage, 1) for stage in run.stages)):
            marker = {"name": name, "command": ["python", name], "cpu_seconds": 60 * minutes}
            marker["attempts"] = 3 if name == "before" else 1
            (folder / "jobs" / f"{name}.json").write_text(json.dumps(marker))


def rows_of(folder, report=REPORT, runs=RUNS):
    markers = read_markers(folder)
    return [make_row(report, run, folder, markers) for run in runs]


def test_a_row_has_scores_course_cost_and_provenance(tmp_path):
    make_study(tmp_path)
    base, new = rows_of(tmp_path)
    assert (base["AP50"], base["AP"], base["weights"]) == (45.0, None, "averaged")
    assert base["raw_weights"] == {"AP50": 1.0, "AP": 2.0}
    assert base["course"][0] == (10, 0.5) and base["is_flat"]
    assert base["change_over_last_fifth"] == pytest.approx(1)
    assert (base["cpu_minutes"], base["stages_cpu_minutes"], base["attempts"]) == (1.5, {}, 1)
    assert (new["stages_cpu_minutes"], new["attempts"], new["extra"]) == ({"before": 1.0}, 3, 1)
    for key in ("config", "commit", "hardware", "command", "steps", "time"):
        assert base[key], key


def test_a_loss_changes_in_per_cent_of_itself(tmp_path):
    make_study(tmp_path)
    report = StudyReport(REPORT.metrics, "base", "", "total_loss", course_is_loss=True)
    (row, _) = rows_of(tmp_path, report)
    assert row["change_over_last_fifth"] == pytest.approx(-100 * 0.2 / 9.2)
    assert not row["is_flat"], "nothing is called flat without a bound"
    assert "| -2.2 %" in write_report(report, RUNS, tmp_path)


def test_an_evaluation_has_no_course(tmp_path):
    run = StudyRun("on", "runs/on", "on", is_trained=False)
    make_study(tmp_path, [run])
    (tmp_path / "runs/on/metrics.json").unlink()
    (row,) = rows_of(tmp_path, runs=[run])
    assert (row["course"], row["change_over_last_fifth"], row["steps"]) == ([], None, 100)


def test_the_report_shows_every_number_and_writes_all_files(tmp_path):
    make_study(tmp_path)
    text = write_report(REPORT, RUNS, tmp_path)
    assert text == (tmp_path / "results.md").read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[:4]]
    assert table[0][:4] == ["arm", "AP50", "AP of all", "change, last fifth"]
    assert table[3] == ["new", "45.0", "-", "+1.0, flat", "2", "100", "1.5 (1.0)"]
    assert "the comparison counts" in text and "- an appendix" in text
    assert "- new: a training was started 3 times" in text and "base: a training" not in text
    assert "interval" not in text, "one seed says nothing about seeds"
    read = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in read] == ["base", "new"]
    assert np.ptp(cv2.imread(str(tmp_path / "curves.png"))) > 0
    assert not list(tmp_path.glob(".*"))

    # A second report of the same folder replaces nothing.
    write_report(replace(REPORT, files=("a.jsonl", "a.md", "a.png")), RUNS[:1], tmp_path)
    assert text == (tmp_path / "results.md").read_text() != (tmp_path / "a.md").read_text()
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
    assert np.ptp(cv2.imread(str(tmp_path / "a.png"))) > 0


def test_several_seeds_and_groups_are_told_apart_and_compared(tmp_path):
    runs = []
    for seed, gain in ((0, 1.0), (1, 3.0)):
        for arm, ap50 in (("base", 50.0), ("new", 50.0 + gain)):
            name = f"{arm}{seed}"
            runs.append(StudyRun(arm, f"runs/{name}", name, group="10 %"))
            make_study(tmp_path, runs[-1:], seed, ap50)
    text = write_report(REPORT, runs, tmp_path)
    assert text.splitlines()[0].split("|")[1:4] == [" arm   ", " group   ", " seed   "]
    (line,) = [line for line in text.splitlines() if line.startswith("| new") and " to " in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[2:] == ["+2.00", "-10.71 to +14.71", "2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, r"results\.json cannot be read"),
        ("results.json", '{"results": {"bbox": {"AP50": 1}}}', "has no AP in bbox"),
        ("metrics.json", None, r"metrics\.json is missing"),
        ("metrics.json", '{"iteration": 1}\n', "holds no total_loss; was anything trained"),
    ],
)
def test_what_is_missing_is_named(tmp_path, name, content, message):
    make_study(tmp_path)
    path = tmp_path / "runs" / "new" / name
    path.unlink()
    if content:
        path.write_text(content)
    report = StudyReport(REPORT.metrics, "base", "", "total_loss", course_is_loss=True)
    with pytest.raises(StudyReportError, match=rf"runs/new/{message}|runs/new/{name} {message}"):
        write_report(report, RUNS, tmp_path)
    assert not (tmp_path / "results.md").exists()


def test_course_has_each_step_once_and_the_half_line_of_a_killed_run_is_skipped(tmp_path):
    lines = [{"iteration": i, "AP50": float(i), "loss": 1.0} for i in (9, 19, 29)]
    lines += [{"iteration": 19, "AP50": 50.0}, {"iteration": 39, "AP50": math.nan}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 100, "AP'
    (tmp_path / "metrics.json").write_text(text)
    records = read_records(tmp_path)
    assert read_course(records, "AP50") == [(10, 9.0), (20, 50.0), (30, 29.0)]
    assert read_course(records, "AP") == []


@pytest.mark.parametrize(
    ("read", "name", "message"),
    [
        (read_records, "metrics.json", r"metrics\.json holds nothing"),
        (read_results, "results.json", r"results\.json cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, read, name, message):
    (tmp_path / name).write_text("{")
    with pytest.raises(StudyReportError, match=message):
        read(tmp_path)


def test_rows_are_strict_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows([{"a": math.nan, "b": [(1, math.inf)], "c": {"d": 2.0}}, {"a": 1}], path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"a": None, "b": [[1, None]], "c": {"d": 2.0}}, {"a": 1}]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_of_another_commit_are_told_apart():
    row = {"commit": "abc", "seed": 0, "config": "c.py", "hardware": {}, "versions": {"torch": "2"}}
    rows = [{**row, "arm": arm} for arm in ("one", "two", "one")] + [
        {**row, "arm": "late", "commit": "def"}
    ]
    assert describe_origins(rows) == [
        "- one, two: commit abc, seed 0, torch 2, config c.py, hardware {}",
        "- late: commit def, seed 0, torch 2, config c.py, hardware {}",
    ]
