"""What studies share: command line, settings by name, commands."""

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from rsd2.study import (
    Job,
    JobQueue,
    Study,
    StudyReportError,
    StudySettings,
    change_settings,
    module_command,
    project_config,
    read_markers,
    run_study,
    scene_jobs,
    training_command,
)
from rsd2.study import plan as plan_module


@dataclass(frozen=True)
class Settings(StudySettings):
    known_arms: ClassVar[tuple[str, ...]] = ("one", "two")
    arms: tuple[str, ...] = known_arms
    steps: int = 5
    rate: float = 0.5
    shares: tuple[float, ...] = (0.1, 1.0)


def test_settings_are_changed_by_name():
    changed = change_settings(Settings(), ["steps=7", "arms=two", "shares=0.5,0.2", "rate=1"])
    assert changed == Settings(arms=("two",), steps=7, rate=1.0, shares=(0.5, 0.2))
    assert change_settings(Settings(), []) == Settings()


def test_a_name_with_a_dot_is_one_of_every_training_s_config():
    opts = ["a.b=[1,2]", "steps=7", "c.d=x=y"]
    assert change_settings(Settings(), opts).overrides == ("a.b=[1,2]", "c.d=x=y")


def test_the_first_seed_has_the_plain_names():
    settings = change_settings(Settings(), ["seeds=3,0"])
    assert [settings.suffix(seed) for seed in settings.seeds] == ["", "_seed0"]


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("step=7", "'step=7': write name=value with a name of arms, seeds, overrides, steps"),
        ("steps", "'steps': write name=value"),
        ("steps=many", "'steps=many': expects int like 5"),
        ("shares=a", "'shares=a': expects tuple"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("arms=three", r"arms are some of one, two, got \['three'\]"),
        ("arms=", "arms are some of one, two"),
        ("seeds=1,1", "seeds are different numbers"),
    ],
)
def test_wrong_settings_are_refused(opt, message):
    with pytest.raises(ValueError, match=message):
        change_settings(Settings(), [opt])


STAMP = "import os, sys, time; t = time.time(); time.sleep(0.1); f = open(sys.argv[1], 'w');"
STAMP += "print(t, time.time(), os.environ['OMP_NUM_THREADS'], os.getcwd(), file=f)"


def make_plan(report=lambda: "the report", code=STAMP):
    """A plan of two jobs and two that have to run alone."""

    def plan(settings, folder):
        def jobs(*names):
            return [
                Job(name, (sys.executable, "-c", code, str(folder / name)), makes=(name,))
                for name in names
            ]

        return Study(jobs("a", "b"), report, jobs("c", "d"))

    return plan


@pytest.fixture
def study(tmp_path):
    """Run a plan's study into a folder."""

    def run(plan, *words):
        argv = ["--output", str(tmp_path / "out"), *words]
        return run_study("What.", {"study": Settings()}, plan, argv)

    return run


def test_jobs_that_measure_run_alone_and_last(study, repository, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert study(make_plan()) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out == "the report\n"
    times = {}
    for name in "abcd":
        start, end, threads, place = (tmp_path / "out" / name).read_text().split()
        times[name] = float(start), float(end)
        assert threads == "1" and Path(place) == repository
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
        (train, "train --num-images 5 --seed 1 --size 64 --scale 2 --num-workers 0"),
        (val, "val --num-images 3 --seed 2 --size 64 --scale 2 --num-workers 0"),
    ):
        expected = shlex.split(f"-m rsd2 synthesize --output OUT/data/synthetic/{words}")
        assert list(job.command[1:]) == expected
        assert job.makes == (f"data/synthetic/{words.split()[0]}/scenes.json",)
    words = training_command(
        "c.py", folder / "a", "x.y=1", steps=7, batch=2, seed=3, start=folder / "b"
    )
    assert words[1:7] == ("-m", "rsd2", "train", "--config-file", "c.py", "--resume")
    assert words[7:] == (
        'train.output_dir="OUT/a"',
        "train.max_iter=7",
        "train.seed=3",
        "dataloader.train.total_batch_size=2",
        'train.init_checkpoint="OUT/b"',
        "x.y=1",
    )
    scratch = training_command("c.py", folder / "a", steps=7, seed=3)
    assert scratch == words[:10]
    assert module_command("a.b", folder, 3) == (sys.executable, "-m", "a.b", "OUT", "3")


def test_configs_are_found_in_a_checkout_and_in_a_wheel(repository, tmp_path, monkeypatch):
    module = repository / "projects" / "MICML" / "micml" / "study.py"
    assert project_config(module, "x.py") == "projects/MICML/configs/x.py"
    installed = tmp_path / "rsd2" / "projects" / "micml"
    (installed / "configs").mkdir(parents=True)
    monkeypatch.setattr(plan_module, "_WORK_FOLDER", None)
    assert project_config(installed / "study.py", "x.py") == str(installed / "configs" / "x.py")
