"""``python -m benchmarks``: complete rows, errors that help, files that are whole."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    *("case", "size", "dtype", "device", "threads", "floor", "floor_ms", "note", "machine"),
    *("ours_ms", "ours_min_ms", "ours_runs", "ours_mb", "commit", "versions", "time"),
    *("peer", "peer_ms", "peer_min_ms", "peer_runs", "peer_mb", "ratio", "ratio_of_minima"),
}


@pytest.fixture
def tool(monkeypatch):
    """The tool as a module, with its package of cases on the path."""
    return importlib.import_module("benchmarks.__main__")


@pytest.fixture
def harness(tool):
    return importlib.import_module("benchmarks.harness")


def counting(calls: list[str], name: str):
    return lambda: calls.append(name)


def test_contenders_take_turns_and_rows_are_complete(harness):
    calls: list[str] = []
    peers = {"one": counting(calls, "one"), "two": counting(calls, "two")}
    case = harness.Case("count", "1", counting(calls, "ours"), peers, floor_bytes=1000)
    finished = []
    peaks = {"rsd2": 4.0, "one": 3.0, "two": 3.0}
    rows = harness.run_cases([case], 2, lambda case: peaks, finished.append)
    assert calls == ["ours", "one", "two"] * 3  # the first turn does not count
    assert finished == [rows] and [row["peer"] for row in rows] == ["one", "two"]
    for row in rows:
        assert set(row) == KEYS
        assert row["ours_runs"] == row["peer_runs"] == 2
        assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"])
        assert 0 < row["ours_min_ms"] <= row["ours_ms"] and row["floor_ms"] > 0
        assert (row["ours_mb"], row["peer_mb"]) == (4, 3)
        assert row["versions"]["torch"] == torch.__version__ and row["machine"]
        json.dumps(row)


def test_a_slow_contender_runs_once(harness, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS_PER_CONTENDER", -1.0)
    times = harness.measure_times(harness.Case("x", "1", lambda: 0, {"peer": lambda: 0}), 5)
    assert {name: len(runs) for name, runs in times.items()} == {"rsd2": 1, "peer": 1}


def test_a_case_without_a_peer_says_why(harness, tool):
    case = harness.Case("alone", "1", lambda: 0, note="nobody else can")
    (row,) = harness.run_cases([case], 1)
    assert set(row) == KEYS and row["peer"] is None and row["ratio"] is None
    assert "none: nobody else can" in tool.markdown_table([row])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_memory_is_the_peak_of_the_call(harness):
    def work():
        large = torch.ones(10_000_000)  # 40 MB that are gone at the end
        return large[:2].clone()

    peaks = harness.peak_memory(harness.Case("x", "1", work, {"small": lambda: torch.ones(2)}))
    assert 38 < peaks["rsd2"] < 45 and peaks["small"] < 2


def test_unknown_names_are_answered_with_the_known_ones(tool, capsys):
    for argv, known in (
        (
            ["nonsense"],
            "there are: bottom_heavy, error_report, evaluation, export, labels, micml, mutdet",
        ),
        (["ops", "--case", "iou mux 1000x1000"], "iou mix 1000x1000"),
        (["ops", "--rounds", "0"], "1 or more"),
        (["ops", "--only-memory"], "one --case"),
    ):
        with pytest.raises(SystemExit):
            tool.main(argv)
        assert known in capsys.readouterr().err


def test_names_are_unique_and_quick_is_a_part(tool, harness):
    cases = importlib.import_module("benchmarks.ops").cases()
    assert len({case.name for case in cases}) == len(cases)
    quick = tool.choose(tool.cases_of("ops"), [], True)
    assert 0 < len(quick) < len(cases)
    assert all(case.peers or case.note for case in cases)


def test_rows_of_the_command(tool, tmp_path):
    output, document = tmp_path / "new" / "rows.jsonl", tmp_path / "table.md"
    document.write_text("before\n<!-- benchmark: ops -->\nold\n<!-- end: ops -->\nafter\n")
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "ops",
        "--case",
        "iou mix 100x100",
        "--rounds",
    ]
    command += ["1", "--output", str(output), "--markdown", str(document), "--threads", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows == [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["peer"] for row in rows} >= {"torchvision box_iou", "shapely + STRtree"}
    assert all(set(row) == KEYS and row["ours_mb"] is not None for row in rows)
    assert [path.name for path in output.parent.iterdir()] == ["rows.jsonl"]
    text = document.read_text()
    assert text.startswith("before\n<!-- benchmark: ops -->\n") and "old" not in text
    assert text.endswith("<!-- end: ops -->\nafter\n") and "| iou mix 100x100 |" in text


def test_a_document_without_marks_is_refused_before_the_work(tool, tmp_path, capsys):
    document = tmp_path / "table.md"
    document.write_text("nothing here\n")
    with pytest.raises(SystemExit):
        tool.main(["ops", "--case", "iou mix 5000x5000", "--markdown", str(document)])
    assert "benchmark: ops" in capsys.readouterr().err
    assert document.read_text() == "nothing here\n"
