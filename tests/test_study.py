"""What studies share: settings by name, and courses out of files made by hand."""

import json
import math
from dataclasses import dataclass

import pytest

from rsd2.study import (
    StudyReportError,
    change_over_last_fifth,
    change_settings,
    read_course,
    read_records,
    read_results,
    write_rows,
)


@dataclass(frozen=True)
class Settings:
    steps: int = 5
    rate: float = 0.5
    arms: tuple[str, ...] = ("one", "two")
    shares: tuple[float, ...] = (0.1, 1.0)

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def test_settings_are_changed_by_name():
    changed = change_settings(Settings(), ["steps=7", "arms=two", "shares=0.5,0.2"])
    assert changed == Settings(7, 0.5, ("two",), (0.5, 0.2))
    assert change_settings(Settings(), []) == Settings()


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("step=7", "'step=7': write name=value with a name of steps, rate, arms, shares"),
        ("steps", "'steps': write name=value"),
        ("steps=many", "'steps=many': expects int like 5"),
        ("shares=a", "'shares=a': expects tuple"),
        ("steps=0", "at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(opt, message):
    with pytest.raises(ValueError, match=message):
        change_settings(Settings(), [opt])


def test_course_has_each_step_once_and_the_half_line_of_a_killed_run_is_skipped(tmp_path):
    lines = [{"iteration": i, "AP50": float(i), "loss": 1.0} for i in (9, 19, 29)]
    lines += [{"iteration": 19, "AP50": 50.0}, {"iteration": 39, "AP50": math.nan}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 100, "AP'
    (tmp_path / "metrics.json").write_text(text)
    records = read_records(tmp_path)
    assert read_course(records, "AP50") == [(10, 9.0), (20, 50.0), (30, 29.0)]
    assert read_course(records, "AP") == []


def test_change_over_the_last_fifth_is_that_of_a_line():
    course = [(10 * k, 100.0 - k) for k in range(1, 11)]
    # of the points at 80, 90, 100: one down for each ten steps
    assert change_over_last_fifth(course) == pytest.approx(-2)
    assert change_over_last_fifth([(8, 1.0), (9, 4.0), (10, 1.0)]) == pytest.approx(0)
    late = [*course[:-1], (101, 90.0)]  # logged one later, and nothing is lost
    assert change_over_last_fifth(late) == pytest.approx(-2, abs=0.1)
    assert change_over_last_fifth(course[:4]) is None  # at 40 alone and 32 has no point
    assert change_over_last_fifth([]) is None


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (read_records, "metrics.json", None, r"metrics\.json is missing"),
        (read_records, "metrics.json", "{", r"metrics\.json holds nothing"),
        (read_results, "results.json", None, r"results\.json cannot be read"),
        (read_results, "results.json", "{", r"results\.json cannot be read"),
    ],
)
def test_what_is_missing_is_named(tmp_path, read, name, content, message):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(StudyReportError, match=message):
        read(tmp_path)


def test_rows_are_strict_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows([{"a": math.nan, "b": [(1, math.inf)], "c": {"d": 2.0}}, {"a": 1}], path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"a": None, "b": [[1, None]], "c": {"d": 2.0}}, {"a": 1}]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
