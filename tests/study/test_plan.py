"""What studies share: command line, settings by name, courses out of files made by hand."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from rsd2.study import (
    Study,
    StudyReportError,
    change_over_last_fifth,
    change_settings,
    describe_origins,
    python_command,
    read_course,
    read_records,
    read_results,
    run_study,
    scene_jobs,
    study_parser,
    training_command,
    write_rows,
)
from rsd2.study.job_queue import Job, JobQueue, read_markers


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


STAMP = "import os, sys, time; t = time.time(); time.sleep(0.1); f = open(sys.argv[1], 'w');"
STAMP += "print(t, time.time(), os.environ['OMP_NUM_THREADS'], os.getcwd(), file=f)"


def make_plan(report=lambda: "the report", code=STAMP):
    """A plan of two jobs and two that have to run alone."""

    def plan(args, folder):
        def jobs(*names):
            return [
                Job(name, python_command("-c", code, folder / name), makes=(name,))
                for name in names
            ]

        settings = change_settings(Settings(), args.opts)
        return Study(jobs("a", "b"), report, jobs("c", "d"), settings)

    return plan


@pytest.fixture
def study(tmp_path):
    """Run a plan's study into a folder."""

    def run(plan, *words):
        argv = ["--output", str(tmp_path / "out"), *words]
        return run_study(study_parser("What.", ["study"]), plan, argv, root=tmp_path)

    return run


def test_jobs_that_measure_run_alone_and_last(study, tmp_path, capsys):
    assert study(make_plan()) == 0
    assert capsys.readouterr().out == "the report\n"
    times = {}
    for name in "abcd":
        start, end, threads, place = (tmp_path / "out" / name).read_text().split()
        times[name] = float(start), float(end)
        assert threads == "1" and Path(place) == tmp_path
    assert times["c"][0] > max(times["a"][1], times["b"][1]) and times["d"][0] > times["c"][1]


def test_list_shows_what_would_run_and_runs_nothing(study, tmp_path, capsys):
    assert study(make_plan(), "--list", "steps=9") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(change_settings(Settings(), ["steps=9"]))
    assert [line.split(": ")[0] for line in lines] == list("abcd")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--slots", "0"), "run_study: --slots must be at least 1, got 0\n"),
        (("steps=0",), "run_study: steps must be at least 1, got 0\n"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_nothing(study, tmp_path, capsys, words, message):
    assert study(make_plan(), *words) == 2
    assert capsys.readouterr().err == message and not (tmp_path / "out").exists()


def test_failures_and_interruptions_have_their_codes(study, tmp_path, capsys, monkeypatch):
    assert study(make_plan(code="import sys; sys.exit('no ' + sys.argv[1])")) == 1
    assert "a, b failed; see the end of" in capsys.readouterr().err
    assert not (tmp_path / "out" / "jobs" / "c.log").exists(), "nothing is measured then"

    def fail():
        raise StudyReportError("no file")

    assert study(make_plan(fail)) == 1
    assert "run_study: no file" in capsys.readouterr().err
    assert set(read_markers(tmp_path / "out")) == set("abcd")

    def interrupt(queue):
        raise KeyboardInterrupt

    monkeypatch.setattr(JobQueue, "run", interrupt)
    assert study(make_plan()) == 130
    assert "interrupted; run the same command to continue" in capsys.readouterr().err


def test_commands_of_scenes_and_trainings():
    folder = Path("OUT")
    train, val = scene_jobs(folder, train=5, val=3, size=64, options=("--scale", 2))
    for job, words in (
        (train, "train --num-images 5 --size 64 --seed 1 --scale 2 --num-workers 0"),
        (val, "val --num-images 3 --size 64 --seed 2 --scale 2 --num-workers 0"),
    ):
        expected = shlex.split(f"tools/make_synthetic.py --output OUT/data/synthetic/{words}")
        assert list(job.command[1:]) == expected
        assert job.makes == (f"data/synthetic/{words.split()[0]}/scenes.json",)
    words = training_command("c.py", folder / "a", steps=7, batch=2, seed=3, start=folder / "b")
    assert words[1:5] == ("tools/lazyconfig_train_net.py", "--config-file", "c.py", "--resume")
    assert set(words[5:]) == {
        'train.output_dir="OUT/a"',
        'train.init_checkpoint="OUT/b"',
        "train.max_iter=7",
        "train.seed=3",
        "dataloader.train.total_batch_size=2",
    }
    scratch = training_command("c.py", folder / "a", steps=7, batch=2, seed=3)
    assert len(scratch) == len(words) - 1 and not any("init_checkpoint" in w for w in scratch)


def test_rows_of_another_commit_are_told_apart():
    row = {"commit": "abc", "seed": 0, "config": "c.py", "hardware": {}, "versions": {"torch": "2"}}
    rows = [{**row, "arm": arm} for arm in ("one", "two", "one")] + [
        {**row, "arm": "late", "commit": "def"}
    ]
    assert describe_origins(rows) == [
        "- one, two: commit abc, seed 0, torch 2, config c.py, hardware {}",
        "- late: commit def, seed 0, torch 2, config c.py, hardware {}",
    ]
