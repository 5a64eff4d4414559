"""``rsd2 demo``: its commands fit together; tests/test_wheel.py runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd2.commands.demo import CONFIG, demo_jobs, main
from rsd2.commands.main import VERBS
from rsd2.config import find_config
from rsd2.io.program import program_name
from rsd2.study import JobError


@pytest.mark.parametrize("quick", [True, False])
def test_each_step_takes_what_an_earlier_one_makes(quick: bool, tmp_path: Path) -> None:
    assert find_config(CONFIG) is not None
    made = set()
    for job in demo_jobs(tmp_path, quick=quick):
        assert job.command[3] in VERBS and job.command[1:3] == ("-m", "rsd2")
        read = {word for word in job.command if word.endswith(".pth")}
        assert read <= {str(tmp_path / name) for name in made}
        made |= set(job.makes)


def test_a_failed_step_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise JobError("train failed, see jobs/train.log")

    monkeypatch.setattr("rsd2.commands.demo.run_jobs", fail)
    assert main(["--quick", "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"{program_name()}: error: train failed, see jobs/train.log\n"
    assert captured.out.count("rsd2 ") == 5 and "rsd2 train --config-file" in captured.out
